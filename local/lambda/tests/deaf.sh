#!/bin/sh
# A process that SIGTERM does not end and that never asks for an event.
trap '' TERM
echo deaf
while :; do sleep 1; done
