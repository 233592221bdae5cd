#!/usr/bin/env bash
# Measures on an accelerator, in pieces of ten minutes at most:
#
#   benchmarks/accelerator.sh [PIECE...]
#
# A piece writes OUT/PIECE.json, and is skipped where that file is complete;
# one that was cut off goes on after the rows it has, with the programs that it
# had compiled (minutes on a card). Without arguments, all:
#
#   omp          sparse coding against the card's bandwidth, and PyTorch
#   step         a training step: lasers, vq, none; JAX and PyTorch
#   bottlenecks  each bottleneck, beside vector-quantize-pytorch
#   decoders     milliseconds an image of each decoder
#   codes        codes on the card and on the CPU: are they the same?
#   train        CIFAR-10 to 36 dB; IMAGES is a file that was made elsewhere by
#                python benchmarks/train_to.py --make=cifar10.npz
#
# Needs no network, no Grain and no data set but IMAGES. The machine needs jax
# (CUDA or TPU), flax, optax, chex, orbax-checkpoint, ml_collections, etils and
# Pillow; PyTorch and vector-quantize-pytorch take part where they are
# installed. Variables: OUT (accelerator), IMAGES (cifar10.npz), PYTHON, LIMIT
# (seconds of a piece), COMMIT (where git is missing), QUICK=1 (in miniature, to
# try the pieces out; the numbers mean nothing).
set -euo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-accelerator}
images=${IMAGES:-cifar10.npz}
python=${PYTHON:-python}
limit=${LIMIT:-590}
quick=${QUICK:-}
# Beside PyTorch on one card JAX must not take most of the memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export JAX_COMPILATION_CACHE_DIR=$out/compiled/jax
export TORCHINDUCTOR_CACHE_DIR=$out/compiled/torch

options() {  # prints the program of a piece and its flags, one a line
  case $1 in
    omp) printf '%s\n' omp.py
      [ -z "$quick" ] || printf '%s\n' --shapes=256x8x32x2 --rounds=1 ;;
    step) printf '%s\n' train_step.py
      if [ -z "$quick" ]; then printf '%s\n' --batch=256 --steps=20 --bfloat16
      else printf '%s\n' --batch=2 --side=16 --rounds=1 --names=none; fi ;;
    bottlenecks) printf '%s\n' bottlenecks.py --sizes=1024 --platform=
      [ -z "$quick" ] || printf '%s\n' --names=fsq --images=1 --rounds=1 ;;
    decoders) printf '%s\n' decoders.py
      if [ -z "$quick" ]; then printf '%s\n' --batch=256
      else printf '%s\n' --batch=2 --rounds=1 --rows=1; fi ;;
    codes) printf '%s\n' same_codes.py
      [ -z "$quick" ] || printf '%s\n' --shapes=256x8x32x2 ;;
    train) printf '%s\n' train_to.py "--images=$images" "--workdir=$out/train"
      if [ -z "$quick" ]; then printf '%s\n' --psnr=36 --limit=480
      else printf '%s\n' --name=vq --psnr=99 --every=2 --steps=4 --batch=4; fi ;;
    *) echo "there is no piece $1" >&2; return 2 ;;
  esac
}

if [ $# -eq 0 ]; then
  set -- omp step bottlenecks decoders codes train
fi
mkdir -p "$out"
failed=0
for piece; do
  file=$out/$piece.json
  if grep -q '"complete": true' "$file" 2>/dev/null; then
    echo "$file is complete" >&2
    continue
  fi
  words=$(options "$piece")
  mapfile -t words <<<"$words"
  echo "measuring $piece" >&2
  timeout "$limit" "$python" "benchmarks/${words[0]}" "${words[@]:1}" \
    --json="$file" | tee "$out/$piece.md" || failed=1
done
exit $failed
