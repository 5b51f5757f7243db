# A web server from a container image, without a Docker daemon.
#
#   nomad job run jobs/image.hcl
#   nomad job run -var image=registry.example.com/team/app:1.2 -var port=80 jobs/image.hcl
#   nomad alloc exec -i -t -job image /bin/sh

variable "image" {
  type        = string
  description = "What to run; a name without a host is looked up at Docker Hub."
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

variable "port" {
  type        = number
  description = "Where the image listens."
  default     = 8080
}

variable "network" {
  type        = string
  description = "bridge gives the task an address of its own; host shares the node's, and the port must be free there."
  default     = "bridge"
}

job "image" {
  group "web" {
    count = 1

    network {
      mode = var.network
      port "http" {
        to = var.port
      }
    }

    task "web" {
      driver = "drover"

      config {
        image   = var.image
        command = var.command
        args    = var.args
        # auth {
        #   username = "me"
        #   password = "secret"
        # }
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
