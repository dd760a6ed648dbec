#!/usr/bin/env bash
# One process on each of several hosts reached by ssh; the first of them coordinates. FOLDER lies on all of them.
#   HOSTS="gpu1 gpu2" FOLDER=/shared/modaltune_jax docs/launch/hosts.sh --config=configs/pancancer.py
set -euo pipefail
: "${HOSTS:?names of the hosts}" "${FOLDER:?the checkout, on a disk that all hosts see}"
read -ra hosts <<<"$HOSTS"
waiting=()
for i in "${!hosts[@]}"; do
  flags=$(printf '%q ' --coordinator="${hosts[0]}:${PORT:-29400}" --num-processes="${#hosts[@]}" --process-id="$i" "$@")
  # With a terminal (-tt), Ctrl-C here reaches the processes there.
  ssh -tt "${hosts[$i]}" "cd $FOLDER && ${PYTHON:-python} -m modaltune_jax.main $flags" &
  waiting+=($!)
done
status=0
for process in "${waiting[@]}"; do wait "$process" || status=$?; done
exit "$status"
