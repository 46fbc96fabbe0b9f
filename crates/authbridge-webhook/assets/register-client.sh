# Registers this workload's Keycloak client and hands the credentials to the proxy by file.
# POSIX sh. Roots and program come from the environment for tests only; the webhook sets none of the three.
# No dollar sign twice in a row: the kubelet halves them in a container's command.
SVID_DIR=${SVID_DIR:-/opt}
SHARED_DIR=${SHARED_DIR:-/shared}
REGISTER_CMD=${REGISTER_CMD:-python /app/client_registration.py}
secret_file=${SECRET_FILE_PATH:-$SHARED_DIR/client-secret.txt}
secret_tmp=$SHARED_DIR/.client-secret.tmp
id_tmp=$SHARED_DIR/.client-id.tmp
child=

log() { echo "register-client: $*" >&2; }

# A shell runs its trap only between commands, so everything that takes time is a background child.
stop() {
  trap '' TERM INT
  if [ -n "$child" ]; then
    kill -TERM "$child" 2>/dev/null
    kill -KILL "$child" 2>/dev/null
  fi
  rm -f "$secret_tmp" "$id_tmp"
  exit 0
}
trap stop TERM INT

pause() {
  sleep "$1" &
  child=$!
  wait "$child"
  child=
}

# Claim `sub` of the token, or nothing when the token cannot be decoded (it may be half-written).
subject() {
  "$(command -v python3 || command -v python)" -c '
import base64, json, sys
try:
    payload = open(sys.argv[1]).read().strip().split(".")[1].rstrip("=")
    payload += "=" * (-len(payload) % 4)
    sub = json.loads(base64.urlsafe_b64decode(payload))["sub"]
    sys.stdout.write(sub)
except Exception:
    sys.exit(1)
' "$1" 2>/dev/null
}

# publish <temporary file> <file>: complete or not at all, readable by every container of the pod.
publish() { chmod 0644 "$1" && mv -f "$1" "$2"; }

client_id=$CLIENT_NAME
if [ "$SPIRE_ENABLED" = true ]; then
  token=$SVID_DIR/jwt_svid.token
  waited=0
  while :; do
    if [ -s "$token" ]; then
      client_id=$(subject "$token")
      [ -n "$client_id" ] && break
      log "the JWT-SVID in $token has no readable subject, trying again in 5 s"
      pause 5
    else
      [ $((waited % 30)) -eq 0 ] && log "waiting for the JWT-SVID in $token (${waited} s so far)"
      pause 1
      waited=$((waited + 1))
    fi
  done
fi

until printf %s "$client_id" >"$id_tmp" && publish "$id_tmp" "$SHARED_DIR/client-id.txt"; do
  log "cannot write $SHARED_DIR/client-id.txt, trying again in 5 s"
  pause 5
done
log "client id is $client_id"

attempt=1
delay=2
while :; do
  rm -f "$secret_tmp"
  # shellcheck disable=SC2086 # the command and its arguments are one variable on purpose
  SECRET_FILE_PATH=$secret_tmp $REGISTER_CMD &
  child=$!
  wait "$child"
  code=$?
  child=
  if [ "$code" -eq 0 ]; then
    if [ ! -s "$secret_tmp" ] && [ "$CLIENT_AUTH_TYPE" = federated-jwt ]; then
      printf unused >"$secret_tmp"
    fi
    [ -s "$secret_tmp" ] && publish "$secret_tmp" "$secret_file" && break
  fi
  log "registration attempt $attempt failed (exit code $code, no secret yet), trying again in $delay s"
  pause "$delay"
  attempt=$((attempt + 1))
  delay=$((delay * 2))
  [ "$delay" -gt 60 ] && delay=60
done
log "registered $client_id"

while :; do pause 3600; done
