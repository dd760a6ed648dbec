#!/usr/bin/env bash
# One process a GPU host; all GPUs of a host belong to its process.
#   sbatch --nodes=2 --gpus-per-node=8 docs/launch/slurm.sh --config=configs/pancancer.py --config.mesh.fsdp=8
#SBATCH --job-name=modaltune
#SBATCH --ntasks-per-node=1
#SBATCH --signal=INT@120
set -euo pipefail
# Processes find each other: jax reads what Slurm says. Without this, jax gives a task of Slurm its first GPU only.
export JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS:-$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:?start this with sbatch} - 1)))}
exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m modaltune_jax.main --distributed "$@"
