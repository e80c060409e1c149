// Package wire defines the messages between the host and the agent in a guest.
// Both directions carry one JSON object per line over a virtio serial port.
package wire

// PortName is the name of the virtio serial port.
const PortName = "criserver.agent"

// PortPath is the device of that port in the guest.
const PortPath = "/dev/virtio-ports/" + PortName

// MaxData is the largest number of bytes in one message. A line stays far below a megabyte then.
const MaxData = 64 << 10

// Request is a message of the host. The first message with a new ID starts a command.
type Request struct {
	ID string `json:"id"`

	Args []string `json:"args,omitempty"` // the command; only in the first message
	Dir  string   `json:"dir,omitempty"`  // its working directory; "/" if empty
	Env  []string `json:"env,omitempty"`  // added to the agent's environment

	In   []byte `json:"in,omitempty"`   // bytes for stdin
	EOF  bool   `json:"eof,omitempty"`  // closes stdin
	Kill bool   `json:"kill,omitempty"` // kills the command's process group
}

// Reply is a message of the agent.
type Reply struct {
	ID string `json:"id,omitempty"`

	Boot string `json:"boot,omitempty"` // boot ID of the guest; sent at the start of the agent and in reply to an empty Request

	Out    []byte `json:"out,omitempty"` // bytes of stdout
	Err    []byte `json:"err,omitempty"` // bytes of stderr
	Exited bool   `json:"exited,omitempty"`
	Code   int    `json:"code,omitempty"`   // exit status, 128 + n after signal n; only with Exited
	Failed string `json:"failed,omitempty"` // why the command could not be started; only with Exited
}
