# Runs one command of a buildspec as if one shell ran them all: with the variables, functions,
# options and working directory that the commands before it left.
#
# $1 is the folder of the state: `command` holds the command; `variables` and `options` hold what
# earlier ones left, if there are any. $2 is the value of CODEBUILD_BUILD_SUCCEEDING. The caller
# takes the files *.new for the next command once `directory.new`, the last of them, is written.

if [ -f "$1/variables" ]; then
  # Read-only variables of the shell itself refuse to be set again, which is as it should be.
  . "$1/variables" 2>/dev/null
fi
__archweld=$1
__archweld_saved=
CODEBUILD_BUILD_SUCCEEDING=$2
export CODEBUILD_BUILD_SUCCEEDING
set --

__archweld_save() {
  __archweld_status=$?
  if [ -z "$__archweld_saved" ]; then
    __archweld_saved=1
    set +o >"$__archweld/options.new"
    set +eux
    if [ -n "${BASH_VERSION-}" ]; then
      shopt -p >>"$__archweld/options.new"
      { declare -p; declare -f; } >"$__archweld/variables.new"
    else
      # The first gives the values of all variables, the second says which are exported.
      { set; export -p; } >"$__archweld/variables.new"
    fi
    pwd >"$__archweld/directory.new"
  fi
  return "$__archweld_status"
}

# For commands that end the shell: `exit`, or a failure under `set -e`.
trap '{ __archweld_save; } 2>/dev/null' EXIT
if [ -f "$__archweld/options" ]; then
  { . "$__archweld/options"; } 2>/dev/null
fi
. "$__archweld/command"
# For commands that set a trap of their own. This must come last: its status is the command's.
{ __archweld_save; } 2>/dev/null
