#!/bin/bash
# The whole run on a Ray cluster of several nodes, started under Slurm:
#   sbatch --export=ALL,CONFIG=mine.toml examples/ray.sh
# Without Slurm, run the two `ray start` commands by hand, the second one on each other node, then `mapnet run`.
#SBATCH --job-name=mapnet-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00

set -euo pipefail
HEAD=$SLURMD_NODENAME:${RAY_PORT:-6379} # this script runs on the first node
OPTIONS=(--config "${CONFIG:-mine.toml}" --artifacts "${ARTIFACTS:-artifacts}") # in a folder that all nodes share
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

ray start --block --head --port="${HEAD#*:}" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats &
until (exec 3<>"/dev/tcp/${HEAD/:/\/}") 2>/dev/null; do sleep 1; done
srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$SLURMD_NODENAME" \
  ray start --block --address="$HEAD" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats &

mapnet run "${OPTIONS[@]}" --engine ray --ray-address "$HEAD" # more nodes may join at any time
