#!/bin/bash
# Sees to it that hoist has the image of this example: pulls it where a registry
# answers, otherwise makes it from Debian's packages.
exec "$(dirname "$0")/../images/provide" postgres
