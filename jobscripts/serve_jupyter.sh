#!/bin/sh
# Serves Jupyter on the socket of the job, for the gateway in front of it: whoever gets past that needs no second token,
# and nobody else reaches the socket. Runs inside the image, or on the node: POSIX sh and the Jupyter that is there.
# Its check against requests of other sites' pages is the gateway's, too (Origin), and would only keep programs out.
# Source of the options: jupyter_server 2.17 `--help-all`; 1.x knows the token as ServerApp's.
for app in lab notebook server ''; do
  [ -n "$app" ] || { echo 'deephpc: there is no Jupyter here: neither lab, notebook nor server' >&2; exit 127; }
  ! jupyter "$app" --version >/dev/null 2>&1 || break
done
exec jupyter "$app" --no-browser --ServerApp.sock="$DEEPHPC_SOCKET" --ServerApp.sock_mode=0600 \
  --ServerApp.disable_check_xsrf=True --ServerApp.token= --IdentityProvider.token= --ServerApp.allow_remote_access=True --ServerApp.trust_xheaders=True \
  --ServerApp.root_dir="$PWD"
