#!/usr/bin/env bash
# Trains on the machines of an OpenMPI host file: one process for each slot. The repository is on a file system that all of them see.
#   HOSTS=hosts.txt NPROC=16 scripts/train_openmpi.sh configs/yoco_13b.yaml parallelism.shard=parameters --out runs/yoco_13b
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${HOSTS:?a host file: a line \"NAME slots=8\" for each machine, the first one that of rank 0}" "${NPROC:?the processes in all}"
first=$(awk 'NF && $1 !~ /^#/ { print $1; exit }' "$HOSTS")
exec mpirun --hostfile "$HOSTS" -np "$NPROC" --map-by slot -x MASTER_ADDR="$first" -x MASTER_PORT="${MASTER_PORT:-29500}" \
  "$ROOT/build/${PRESET:-cuda}/tandem" train "$@"
