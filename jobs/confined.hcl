# A task that says exactly what it needs: a user, files, limits, and whom it may call.
#
#   nomad job run -var image=registry.example.com/team/app:1.2 jobs/confined.hcl
#
# The egress block needs a network of the group's own (mode bridge or cni).

variable "image" {
  type        = string
  description = "What to run."
  default     = "nginxinc/nginx-unprivileged:alpine"
}

variable "command" {
  type        = string
  description = "What to run in it; empty runs what the image says."
  default     = ""
}

variable "args" {
  type    = list(string)
  default = []
}

variable "user" {
  type        = string
  description = "A user of the image, or a number."
  default     = "1000"
}

variable "network" {
  type    = string
  default = "bridge"
}

job "confined" {
  type = "batch"

  group "main" {
    network {
      mode = var.network
    }

    task "main" {
      driver = "drover"
      user   = var.user

      config {
        image   = var.image
        command = var.command
        args    = var.args

        # What the image's root wrote belongs to the task's user, without copying anything.
        rootfs_owner = "user"
        cap_drop     = ["all"]
        init         = true
        pids_limit   = 100
        shm_size     = "16m"
        tmpfs        = ["/scratch:size=16m"]
        volumes      = ["local/data:/data"]

        ulimit {
          nofile = "1024:4096"
        }

        storage_opt {
          size   = "1G"
          inodes = "50000"
        }

        # Nothing but this, name servers and the task itself can be reached.
        egress {
          protocol     = "tcp"
          destinations = ["192.0.2.0/24"]
          ports        = ["443"]
        }
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
