#!/usr/bin/env bash
# Brings docker-compose.yml up in real containers (podman), flies the same flight through them and through
# one process, and compares the maps. Needs root. Images that a registry would give are made here:
# Debian by debootstrap, NATS from the nats-server binary, the builder from what cargo just built.
set -euo pipefail
cd "$(dirname "$0")/.."

WORK="$PWD/target/compose"
PROFILE="${PROFILE:-release}"
CARGO_PROFILE="$([ "$PROFILE" = debug ] && echo dev || echo "$PROFILE")"
SERVICES="camera-svc slam-svc tile-svc checkpoint-svc drone-ingest mobile-ingest round-svc mesh-gateway"
READY_SECS=120
export CONTAINERS_CONF="$WORK/containers.conf"
export BUILDER=localhost/sovereign-built:latest
export PATH="$WORK/venv/bin:$PATH"

say() { printf 'compose-test: %s\n' "$*"; }

[ "$(id -u)" = 0 ] || { echo "compose-test: run it as root: it makes containers and a network" >&2; exit 1; }
mkdir -p "$WORK"

# The images are of Debian 12, and what was built here has to run in them.
grep -q '^VERSION_CODENAME=bookworm' /etc/os-release \
  || { echo "compose-test: run it on Debian 12: the binaries that are built here go into images of it" >&2; exit 1; }

missing=()
for package in podman runc netavark aardvark-dns debootstrap uidmap iptables python3-venv; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  say "will install ${missing[*]}: they make and run the containers"
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
[ -x "$WORK/venv/bin/podman-compose" ] || { python3 -m venv "$WORK/venv"; "$WORK/venv/bin/pip" install -q podman-compose==1.6.0; }

cat > "$CONTAINERS_CONF" <<'CONF'
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF

say "building the services"
# shellcheck disable=SC2046 # one flag per word is meant
cargo build --locked --profile "$CARGO_PROFILE" \
  $(for service in $SERVICES sovereign-node; do printf -- '--package %s ' "$service"; done)

if ! podman image exists docker.io/library/debian:bookworm-slim; then
  say "making a Debian image"
  debootstrap --variant=minbase --include=ca-certificates,busybox bookworm "$WORK/debian" >"$WORK/debootstrap.log"
  tar -C "$WORK/debian" -c . | podman import - docker.io/library/debian:bookworm-slim >/dev/null
fi
if ! podman image exists docker.io/library/nats:2.15.2-alpine; then
  say "making a NATS image"
  rm -rf "$WORK/nats" && mkdir -p "$WORK/nats"
  cp "$(command -v nats-server)" "$WORK/nats/nats-server"
  printf 'FROM docker.io/library/debian:bookworm-slim\nRUN ln -s /bin/busybox /usr/local/bin/wget\nCOPY nats-server /usr/local/bin/\nENTRYPOINT ["nats-server"]\n' > "$WORK/nats/Dockerfile"
  podman build -q -t docker.io/library/nats:2.15.2-alpine "$WORK/nats" >/dev/null
fi
say "making the builder image"
rm -rf "$WORK/built" && mkdir -p "$WORK/built/out"
for service in $SERVICES; do cp "target/$PROFILE/$service" "$WORK/built/out/"; done
printf 'FROM docker.io/library/debian:bookworm-slim\nCOPY out /out\n' > "$WORK/built/Dockerfile"
podman build -q -t "$BUILDER" "$WORK/built" >/dev/null

finish() {
  local code=$?
  if [ "$code" != 0 ]; then podman-compose logs --tail=40 >"$WORK/logs.txt" 2>&1 || true; say "failed; logs in $WORK/logs.txt"; fi
  podman-compose down --volumes >/dev/null 2>&1 || true
  exit "$code"
}
trap finish EXIT

say "bringing the system up"
podman-compose up -d --build >"$WORK/up.log" 2>&1 || { tail -n 40 "$WORK/up.log"; exit 1; }
# Without systemd, podman does not run health checks by itself.
deadline=$((SECONDS + READY_SECS))
for service in nats $SERVICES; do
  until podman healthcheck run "sovereign-map_${service}_1" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { say "$service is not healthy"; podman logs --tail 40 "sovereign-map_${service}_1"; exit 1; }
    sleep 0.5
  done
  say "$service is healthy"
done

rm -rf "$WORK/credentials"
podman cp sovereign-map_mobile-ingest_1:/data/mobile-ingest "$WORK/credentials"
TILES="$(podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' sovereign-map_tile-svc_1)"
SOVEREIGN_COMPOSE_TILES="http://$TILES:50051" SOVEREIGN_COMPOSE_CREDENTIALS="$WORK/credentials" \
  cargo test --locked --profile "$CARGO_PROFILE" --package sovereign-tests --test compose -- --nocapture
say "the containers painted the same tiles as one process"
