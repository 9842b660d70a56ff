#!/bin/sh
# Stands in for docker on the PATH of a build: the host name of ECR in any argument becomes that of
# the local registry, and `docker manifest` is told that this one speaks plain HTTP.
#
# `../registry` holds the two host names, a line each; `../engine/docker` is the real docker.

here=${0%/*}
{
  read -r ecr
  read -r registry
} <"$here/../registry" || exit 1

if [ ! -x "$here/../engine/docker" ]; then
  echo "docker: there is no docker on the PATH of archweld" >&2
  exit 127
fi

# `docker manifest create|inspect|push` reach the registry themselves and take --insecure after the
# subcommand. Options before the command may have a value, which is not the command.
local=
word=
value=
at=0
insert=0
for argument do
  at=$((at + 1))
  case $argument in
    *"$ecr"* | *"$registry"*) local=1 ;;
  esac
  if [ -n "$value" ]; then
    value=
  else
    case $word:$argument in
      :--config | :--context | :--host | :--log-level | :--tlscacert | :--tlscert | :--tlskey) value=1 ;;
      :-c | :-H | :-l) value=1 ;;
      :-* | manifest:-*) ;;
      :*) word=$argument ;;
      manifest:create | manifest:inspect | manifest:push) word=done insert=$at ;;
      *) word=done ;;
    esac
  fi
done
if [ -z "$local" ]; then
  insert=0
fi

# Each round takes the first argument off the front and puts what it becomes at the end.
count=$#
at=0
while [ "$at" -lt "$count" ]; do
  at=$((at + 1))
  rest=$1
  shift
  argument=
  while :; do
    case $rest in
      *"$ecr"*)
        argument=$argument${rest%%"$ecr"*}$registry
        rest=${rest#*"$ecr"}
        ;;
      *) break ;;
    esac
  done
  set -- "$@" "$argument$rest"
  if [ "$at" -eq "$insert" ]; then
    set -- "$@" --insecure
  fi
done

exec "$here/../engine/docker" "$@"
