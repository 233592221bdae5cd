#!/usr/bin/env bash
# Trains on a Cloud TPU of spot VMs, one or many hosts, until the run is done.
#
#   cluster/tpu_vm.sh NAME ZONE TYPE --config=folder:lasers \
#     --workdir=gs://BUCKET/runs/mine --config.data.name=records:gs://BUCKET/data
#
# NAME is new, TYPE is as v5litepod-16. Call it in a checkout; gcloud must be
# logged in. When the TPU is taken away, another one is queued for, and the run
# goes on. After the run the TPU is deleted; after an error it is kept.
set -euo pipefail

name=$1 zone=$2 type=$3
shift 3
case $type in
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac
queue=(gcloud compute tpus queued-resources)

state() {
  "${queue[@]}" describe "$name" --zone="$zone" \
    --format='value(state.state)' 2>/dev/null || echo none
}

delete() {
  "${queue[@]}" delete "$name" --zone="$zone" --force --quiet
}

wait_until_active() {
  local now
  until now=$(state) && [[ $now == ACTIVE ]]; do
    case $now in
      none)
        "${queue[@]}" create "$name" --node-id="$name" --zone="$zone" \
          --accelerator-type="$type" --runtime-version="$runtime" --spot
        ;;
      SUSPENDED | FAILED) delete ;;
      *)
        echo "$name: $now"
        sleep 30
        ;;
    esac
  done
}

# Arguments: which host (a number, or all), and a command.
on_host() {
  # With a terminal, so that a lost connection asks the run to stop.
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" \
    --command="$2" -- -tt </dev/null
}

archive=$(mktemp --suffix=.tar.gz)
trap 'rm "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD

# Python 3.11 by uv: that of the hosts may be older.
install() {
  gcloud compute tpus tpu-vm scp "$archive" "$name:lasers.tar.gz" \
    --zone="$zone" --worker=all &&
    on_host all 'set -e; mkdir -p lasers; tar -xzf lasers.tar.gz -C lasers
      python3 -m pip install --quiet --user uv
      python3 -m uv venv --quiet --allow-existing --python=3.11 venv
      python3 -m uv pip install --quiet --python=venv "lasers/[tpu,gcs]"'
}

# gcloud hides the code of a command on many hosts: the first one keeps it.
train="venv/bin/lasers-jax train$(printf ' %q' "$@"); echo \$? >code"

while true; do
  wait_until_active
  # Whatever fails here, the state of the TPU and the code say what to do.
  code=gone
  if install; then
    on_host all "rm -f code; $train" || true
    code=$(on_host 0 'cat code' | tr -d '[:space:]') || code=gone
  fi
  echo "$name: exit code $code"
  case $code in
    0)
      delete
      exit
      ;;
    1 | 2) exit "$code" ;;
  esac
  sleep 30 # until Google Cloud says that a TPU is gone
done
