# Adds the platform's trusted certificates to node's own. Sourced while staging, and before the app starts.
if [ -d /etc/cf-system-certificates ] && [ -z "${NODE_EXTRA_CA_CERTS:-}" ]; then
  for drover_cert in /etc/cf-system-certificates/*; do
    if [ -f "$drover_cert" ]; then cat "$drover_cert"; echo; fi
  done > "$TMPDIR/cf-system-certificates.pem"
  unset drover_cert
  export NODE_EXTRA_CA_CERTS=$TMPDIR/cf-system-certificates.pem
fi
