#!/bin/sh
# Turns flannel's subnet.env into options for Docker.  Takes the options of the script of this name that ships with
# flannel, and hands them to "flannelctl docker-opts", which does the work: FLANNELCTL says where that is, else it is
# looked for beside this script and in PATH.

here=$(dirname -- "$0")
for flannelctl in "${FLANNELCTL:-}" "$here/flannelctl" "$(command -v flannelctl)" /usr/local/bin/flannelctl; do
	if [ -f "$flannelctl" ] && [ -x "$flannelctl" ]; then
		exec "$flannelctl" docker-opts "$@"
	fi
done
echo "$0: there is no flannelctl beside this script, in PATH or in /usr/local/bin; say where: FLANNELCTL=PATH" >&2
exit 1
