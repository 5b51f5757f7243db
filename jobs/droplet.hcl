# An app from its droplet: what Cloud Foundry's stager makes of source code. It runs as user vcap, in /home/vcap/app,
# over a stack of the node, as it would in Cloud Foundry.
#
#   nomad job run -var droplet=https://example.com/droplet.tgz -var checksum=sha256:… jobs/droplet.hcl

variable "droplet" {
  type        = string
  description = "An http(s) URL, or a path below one of the plugin's allow_host_paths."
  default     = "https://droplets.example.com/app.tgz"
}

variable "checksum" {
  type        = string
  description = "sha256:HEX; without one the droplet is not checked."
  default     = ""
}

variable "stack" {
  type        = string
  description = "One of the node's stacks (plugin option stack)."
  default     = "cflinuxfs4"
}

variable "command" {
  type        = string
  description = "A command line; empty runs what the droplet says, where the plugin has a lifecycle."
  default     = ""
}

variable "instances" {
  type    = number
  default = 1
}

job "droplet" {
  group "app" {
    count = var.instances

    network {
      port "http" {}
    }

    # A node that has the stack.
    constraint {
      attribute = "$${attr.driver.drover.stack.${var.stack}}"
      value     = "1"
    }

    task "app" {
      driver = "drover"

      config {
        rootfs           = var.stack
        droplet          = var.droplet
        droplet_checksum = var.checksum
        command          = var.command
      }

      env {
        GREETING = "hello"
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
