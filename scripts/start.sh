#!/usr/bin/env /bin/sh
":" /*
# The shell runs this part: it starts this file in the first runtime it finds. To JavaScript it is a comment.
file=$(readlink -f "$0" 2>/dev/null) || file=$0
for runtime in bun "deno run -A --no-config --no-lock" "node --disable-warning=ExperimentalWarning"; do
  type "${runtime%% *}" >/dev/null 2>&1 && exec $runtime "$file" "$@"
done
echo "kcapi-streams: needs Bun, Deno or Node" >&2
exit 127
*/
