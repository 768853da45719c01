#!/usr/bin/env bash
# Trains on one machine, a process for each GPU (or NPROC of them on CPUs), and starts them again from the last checkpoint when one is lost.
#   NPROC=8 RESTARTS=3 scripts/train_torchrun.sh configs/yoco_3b.yaml parallelism.shard=optimizer --out runs/yoco_3b
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
preset=release
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
[ "$gpus" -gt 0 ] && preset=cuda
exec "$ROOT/.venv/bin/torchrun" --no-python --standalone --nproc-per-node "${NPROC:-$((gpus > 0 ? gpus : 2))}" --max-restarts "${RESTARTS:-3}" \
  "$ROOT/build/$preset/tandem" train "$@"
