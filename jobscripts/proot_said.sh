# shellcheck shell=bash
proot_said() { # PRIVATE: what proot said of itself (udocker.sh), where it or its program failed: its stderr is no program's
  local file
  for file in "$1"/engine.*/proot.log; do
    [ ! -s "$file" ] || tail -n 2 "$file" | sed 's/^/deephpc: /' >&2
  done
}
