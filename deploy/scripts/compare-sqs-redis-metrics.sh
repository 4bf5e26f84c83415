#!/usr/bin/env bash
# Whether what went through Redis is in SQS as well, and the other way round: by event id, not by counts.
#
#   ./compare-sqs-redis-metrics.sh [-n ROUNDS] [-i SECONDS] [-- OPTION ...]
#
# Runs `webhook-cli migration compare OPTION ...` ROUNDS times (1), SECONDS (60) apart; 0 rounds: until it is
# interrupted. OPTION may be --window 1h, --settle 1m or --json. WEBHOOK_GATEWAY_ADDRESS and WEBHOOK_API_KEY say
# where and as whom; WEBHOOK_CLI what to run instead of webhook-cli.
#
# Ends with 0 if nothing was missing in any round, with 1 if something was, or as webhook-cli when it can't tell.
set -euo pipefail

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit "$1"
}

rounds=1
interval=60
while getopts "n:i:h" option; do
  case "$option" in
    n) rounds=$OPTARG ;;
    i) interval=$OPTARG ;;
    h) usage 0 ;;
    *) usage 2 ;;
  esac
done
shift $((OPTIND - 1))
[[ $rounds =~ ^[0-9]+$ && $interval =~ ^[0-9]+$ ]] || { echo "compare-sqs-redis-metrics: -n and -i take numbers" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
cli=${WEBHOOK_CLI:-webhook-cli}
if ! command -v "$cli" > /dev/null; then
  cli=$here/../../.venv/bin/webhook-cli
  [ -x "$cli" ] || { echo "compare-sqs-redis-metrics: webhook-cli is needed; set WEBHOOK_CLI" >&2; exit 2; }
fi

worst=0
round=0
while :; do
  round=$((round + 1))
  found=0
  "$cli" migration compare "$@" || found=$?
  # Something missing is what this is for; beyond that nothing was compared.
  if [ "$found" -gt 1 ]; then exit "$found"; fi
  if [ "$found" -gt "$worst" ]; then worst=$found; fi
  if [ "$rounds" -ne 0 ] && [ "$round" -ge "$rounds" ]; then exit "$worst"; fi
  sleep "$interval"
done
