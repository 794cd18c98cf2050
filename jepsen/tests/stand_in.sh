#!/bin/sh
# Stands in for a node: says what it was called with, then does nothing until it is made to end.
echo "called with $*"
exec sleep 600
