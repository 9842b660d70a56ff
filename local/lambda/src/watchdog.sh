# Kills process groups once its input ends, which is when archweld does, however that happens.
#
# A line of the input is `+ <group>` for a group that began or `- <group>` for one that is over.

trap '' HUP INT TERM
groups=
while read -r change group; do
  if [ "$change" = + ]; then
    groups="$groups $group"
    continue
  fi
  rest=
  for other in $groups; do
    [ "$other" = "$group" ] || rest="$rest $other"
  done
  groups=$rest
done
for group in $groups; do
  kill -KILL "-$group" 2>/dev/null
done
