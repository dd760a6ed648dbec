#!/usr/bin/env bash
# One run on every host of a TPU slice. TPU, ZONE: its name and zone; BUCKET: a mounted folder that all hosts see.
#   TPU=my-v5p ZONE=us-east5-a BUCKET=/mnt/shared docs/launch/tpu_pod.sh --config=configs/pancancer.py --config.mesh.sequence=4
set -euo pipefail
: "${TPU:?name of the TPU}" "${ZONE:?its zone}" "${BUCKET:?folder that all hosts see}"
# Hosts find each other: jax asks the TPU.
flags=$(printf '%q ' --distributed --workdir="$BUCKET/runs/${RUN:-run}" "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd $BUCKET/modaltune_jax && .venv/bin/python -m modaltune_jax.main $flags"
