#!/bin/sh
# Compiles every service into the folder $1, inside a builder image; a builder that has them is left alone.
set -eu
OUT="$1"
[ -d "$OUT" ] && exit 0
apt-get update
apt-get install --yes --no-install-recommends pkg-config libopencv-dev clang libclang-dev nodejs npm
SERVICES="camera-svc slam-svc tile-svc checkpoint-svc drone-ingest mobile-ingest round-svc mesh-gateway"
PACKAGES=""
for service in $SERVICES; do PACKAGES="$PACKAGES --package $service"; done
# shellcheck disable=SC2086 # one flag per word is meant
cargo build --release --locked $PACKAGES
mkdir -p "$OUT"
for service in $SERVICES; do cp "target/release/$service" "$OUT/"; done
