#!/usr/bin/env bash
# Usage: sbatch examples/launch/slurm.sh [OPTIONS of ddpo train]
#
# Trains on all GPUs of one or several nodes. Before the time is up, when the job is preempted, and when a node fails, the job goes
# back into the queue, and goes on from its newest checkpoint. Give --output_dir: a folder that all nodes share.
#SBATCH --job-name=ddpo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
#SBATCH --open-mode=append
#SBATCH --output=ddpo-%j.log
set -euo pipefail

queue_again() {
    trap '' TERM
    echo "slurm.sh: asked to end; the run saves a checkpoint, and the job is queued again"
    kill -TERM "$training" 2>/dev/null || true
    wait "$training" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap queue_again TERM

first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first_node:29500" \
    --no-python ddpo train --resume_from_checkpoint true "$@" &
training=$!
wait "$training"
