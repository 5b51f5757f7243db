# start_command BUILD prints how the app starts: the start script of its package.json when that is a plain call of node,
# so that npm does not stand between the app and its signals; else npm start; else server.js.
start_command() {
  local plain
  plain=$(sed -n 's/^.*"start"[[:space:]]*:[[:space:]]*"\(node [A-Za-z0-9_.\/-]*\)".*$/\1/p' "$1/package.json" | head -n 1)
  if [ -n "$plain" ]; then
    echo "$plain"
  elif ! grep -q '"start"[[:space:]]*:' "$1/package.json" && [ -f "$1/server.js" ]; then
    echo "node server.js"
  else
    echo "npm start"
  fi
}
