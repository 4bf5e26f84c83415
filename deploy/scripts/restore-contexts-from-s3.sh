#!/usr/bin/env bash
# Contexts back from the bucket into a Redis that has lost them.
#
#   ./restore-contexts-from-s3.sh [-n] [-t TENANT] [-r ATTEMPTS] [-w SECONDS]
#
# -n only shows what would be done; -t one tenant alone. Runs `webhook-cli restore`; where the bucket or Redis
# is away in between, it goes on where it was after SECONDS (10), at most ATTEMPTS (30) times in a row.
# The context store reads the bucket: it needs S3_BUCKET and the ENCRYPTION_MASTER_KEY of before, this script
# needs neither. WEBHOOK_CONTEXT_ADDRESS and WEBHOOK_API_KEY (an operator's) say where and as whom; WEBHOOK_CLI
# what to run instead of webhook-cli.
#
# Ends with 0 if all is back, with 1 if some objects were not usable (they are named), or as webhook-cli.
set -euo pipefail

usage() {
  sed -n '2,13s/^# \{0,1\}//p' "$0"
  exit "$1"
}

options=()
attempts=30
pause=10
while getopts "nt:r:w:h" option; do
  case "$option" in
    n) options+=(--dry-run) ;;
    t) options+=(--tenant "$OPTARG") ;;
    r) attempts=$OPTARG ;;
    w) pause=$OPTARG ;;
    h) usage 0 ;;
    *) usage 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || usage 2
[[ $attempts =~ ^[0-9]+$ && $pause =~ ^[0-9]+$ ]] || { echo "restore-contexts-from-s3: -r and -w take numbers" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
cli=${WEBHOOK_CLI:-webhook-cli}
if ! command -v "$cli" > /dev/null; then
  cli=$here/../../.venv/bin/webhook-cli
  [ -x "$cli" ] || { echo "restore-contexts-from-s3: webhook-cli is needed; set WEBHOOK_CLI" >&2; exit 2; }
fi

said=$(mktemp)
trap 'rm -f "$said"' EXIT
token=""
failures=0
while :; do
  ended=0
  "$cli" restore ${options[@]+"${options[@]}"} ${token:+--resume "$token"} 2> "$said" || ended=$?
  cat "$said" >&2
  # 3: nothing answers, or what it needs is away.
  if [ "$ended" -ne 3 ]; then exit "$ended"; fi
  reached=$(sed -n 's/^not finished; go on with --resume //p' "$said")
  if [ -n "$reached" ] && [ "$reached" != "$token" ]; then failures=0; token=$reached; fi
  failures=$((failures + 1))
  if [ "$failures" -gt "$attempts" ]; then exit "$ended"; fi
  sleep "$pause"
done
