# site_root BUILD prints the directory to serve: the Staticfile's "root:", else the app itself.
site_root() {
  local root=""
  if [ -f "$1/Staticfile" ]; then
    root=$(sed -n 's/^root:[[:space:]]*\([A-Za-z0-9._/-]*\)[[:space:]]*$/\1/p' "$1/Staticfile" | head -n 1)
  fi
  case "$root" in
    "") root=. ;;
    /* | .. | ../* | */.. | */../*)
      echo "Staticfile: root must be a directory of the app" >&2
      return 1
      ;;
  esac
  echo "$root"
}
