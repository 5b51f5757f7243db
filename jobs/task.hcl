# A one-off task: it runs once, and its exit status is the job's.
#
#   nomad job run -var 'args=["-c", "id; echo done"]' jobs/task.hcl
#   nomad alloc logs -job task

variable "stack" {
  type        = string
  description = "One of the node's stacks (plugin option stack)."
  default     = "cflinuxfs4"
}

variable "command" {
  type    = string
  default = "/bin/sh"
}

variable "args" {
  type    = list(string)
  default = ["-c", "echo I am $(id -un)"]
}

job "task" {
  type = "batch"

  group "task" {
    # Run it once, whatever comes of it.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts = 0
    }

    task "task" {
      driver = "drover"
      user   = "vcap"

      config {
        rootfs  = var.stack
        command = var.command
        args    = var.args
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
