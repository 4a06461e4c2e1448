#!/bin/bash
# The whole run under Slurm, here on one node with eight GPUs: sbatch --export=ALL,CONFIG=mine.toml examples/slurm.sh
# If the job is killed or runs out of time, submit it again: what is finished is skipped, and pretraining resumes.
#SBATCH --job-name=mapnet
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120

set -euo pipefail
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun doesn't inherit it since Slurm 22.05
OPTIONS=(--config "${CONFIG:-mine.toml}" --artifacts "${ARTIFACTS:-artifacts}") # in a folder that all nodes share

mapnet prepare-corpus "${OPTIONS[@]}"
srun --kill-on-bad-exit mapnet pretrain "${OPTIONS[@]}" # one process per GPU; mapnet reads its rank from srun's variables
mapnet finetune-glue "${OPTIONS[@]}"                    # on the first node; on all of them: examples/ray.sh
mapnet report "${OPTIONS[@]}"
