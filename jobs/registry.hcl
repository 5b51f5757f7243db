# The registry, as a job of its own driver: it serves images from a directory of one node.
#
#   nomad job run -var drover=https://example.com/drover.tgz -var stack=cflinuxfs4 jobs/registry.hcl
#
# Nodes that pull from it name it in the plugin's insecure_registries, or give it a certificate. Its content is in the
# host volume "drover-registry", which belongs to the container's vcap:
#
#   client { host_volume "drover-registry" { path = "/srv/drover-registry" } }     # chown 2000:2000

variable "drover" {
  type        = string
  description = "An archive with the program drover in it: whatever an artifact block takes."
  default     = "https://example.com/drover.tgz"
}

variable "stack" {
  type        = string
  description = "One of the node's stacks; the program is static and needs nothing of it."
  default     = "cflinuxfs4"
}

variable "port" {
  type    = number
  default = 5000
}

job "drover-registry" {
  group "registry" {
    network {
      port "registry" {
        static = var.port
      }
    }

    volume "content" {
      type   = "host"
      source = "drover-registry"
    }

    service {
      name = "drover-registry"
      port = "registry"

      check {
        type     = "http"
        path     = "/v2/"
        interval = "10s"
        timeout  = "2s"
      }
    }

    task "registry" {
      driver = "drover"
      user   = "vcap"

      artifact {
        source      = var.drover
        destination = "local"
      }

      volume_mount {
        volume      = "content"
        destination = "/var/lib/drover/registry"
      }

      config {
        rootfs          = var.stack
        command         = "/local/drover"
        args            = ["registry", "--dir", "/var/lib/drover/registry", "--listen", "0.0.0.0:${NOMAD_PORT_registry}"]
        readonly_rootfs = true
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
