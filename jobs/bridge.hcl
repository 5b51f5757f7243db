# The bridge, as a job of its own driver: two of them, since any number may serve one cluster. Cloud Controller finds it
# as bbs.service.cf.internal, file-server.service.cf.internal and cc-uploader.service.cf.internal.
#
#   nomad var put nomad/jobs/drover-bridge ca=@ca.crt cert=@bridge.crt key=@bridge.key nomad_token=…
#   nomad job run -var drover=https://example.com/drover.tgz -var nomad_address=http://nomad.service.consul:4646 jobs/bridge.hcl
#
# Lifecycle bundles are in the host volume "drover-static" of the nodes that may run it.

variable "drover" {
  type        = string
  description = "An archive with the program drover in it: whatever an artifact block takes."
  default     = "https://example.com/drover.tgz"
}

variable "stack" {
  type        = string
  description = "One of the nodes' stacks; the program is static and needs nothing of it."
  default     = "cflinuxfs4"
}

variable "nomad_address" {
  type    = string
  default = "http://nomad.service.consul:4646"
}

variable "bridges" {
  type    = number
  default = 2
}

job "drover-bridge" {
  update {
    max_parallel = 1
  }

  group "bridge" {
    count = var.bridges

    constraint {
      distinct_hosts = true
    }

    network {
      port "bbs" {
        static = 8889
      }
      port "files" {
        static = 8080
      }
      port "uploader" {
        static = 9091
      }
    }

    volume "static" {
      type      = "host"
      source    = "drover-static"
      read_only = true
    }

    service {
      name = "bbs"
      port = "bbs"

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    service {
      name = "file-server"
      port = "files"

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    service {
      name = "cc-uploader"
      port = "uploader"

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "bridge" {
      driver       = "drover"
      user         = "vcap"
      kill_timeout = "30s" # uploads under way may finish

      artifact {
        source      = var.drover
        destination = "local"
      }

      volume_mount {
        volume      = "static"
        destination = "/var/lib/drover/static"
        read_only   = true
      }

      template {
        destination = "secrets/ca.crt"
        uid         = 2000
        gid         = 2000
        perms       = "0400"
        data        = "{{ with nomadVar \"nomad/jobs/drover-bridge\" }}{{ .ca }}{{ end }}"
      }

      template {
        destination = "secrets/bridge.crt"
        uid         = 2000
        gid         = 2000
        perms       = "0400"
        data        = "{{ with nomadVar \"nomad/jobs/drover-bridge\" }}{{ .cert }}{{ end }}"
      }

      template {
        destination = "secrets/bridge.key"
        uid         = 2000
        gid         = 2000
        perms       = "0400"
        data        = "{{ with nomadVar \"nomad/jobs/drover-bridge\" }}{{ .key }}{{ end }}"
      }

      template {
        destination = "secrets/nomad.token"
        uid         = 2000
        gid         = 2000
        perms       = "0400"
        data        = "{{ with nomadVar \"nomad/jobs/drover-bridge\" }}{{ .nomad_token }}{{ end }}"
      }

      template {
        destination = "local/bridge.hcl"
        data        = <<-HCL
          listen {
            bbs      = "0.0.0.0:8889"
            files    = "0.0.0.0:8080"
            uploader = "0.0.0.0:9091"
          }
          tls {
            ca   = "/secrets/ca.crt"
            cert = "/secrets/bridge.crt"
            key  = "/secrets/bridge.key"
          }
          static_dir = "/var/lib/drover/static"
          nomad {
            address    = "${var.nomad_address}"
            token_file = "/secrets/nomad.token"
          }
        HCL
      }

      config {
        rootfs          = var.stack
        command         = "/local/drover"
        args            = ["bridge", "--config", "/local/bridge.hcl"]
        readonly_rootfs = true
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
