package wire

// DecodeSpec reads a Spec. Fields that it does not know are passed over, as a
// newer daemon may send them. Its strings share the memory of b.
func DecodeSpec(b []byte) (Spec, error) {
	var s Spec
	r := reader{b: b}
	r.object(func(key string) {
		switch key {
		case "version":
			s.Version = int(r.integer())
		case "id":
			s.ID = r.str()
		case "runDir":
			s.RunDir = r.str()
		case "bundle":
			s.Bundle = r.str()
		case "exitFile":
			s.ExitFile = r.str()
		case "runtime":
			s.Runtime = r.strs()
		case "createArgs":
			s.CreateArgs = r.strs()
		case "runtimeEnv":
			s.RuntimeEnv = r.strs()
		case "stdioUID":
			s.StdioUID = uint32(r.integer())
		case "stdioGID":
			s.StdioGID = uint32(r.integer())
		case "logPath":
			s.LogPath = r.str()
		case "guest":
			s.Guest = r.boolean()
		case "terminal":
			s.Terminal = r.boolean()
		case "stdin":
			s.Stdin = r.boolean()
		case "stdinOnce":
			s.StdinOnce = r.boolean()
		default:
			r.skip()
		}
	})
	return s, r.end()
}

// DecodeRequest reads a Request. Its strings share the memory of b.
func DecodeRequest(b []byte) (Request, error) {
	var q Request
	r := reader{b: b}
	r.object(func(key string) {
		switch key {
		case "op":
			q.Op = r.str()
		case "width":
			q.Width = r.uint16()
		case "height":
			q.Height = r.uint16()
		case "stdin":
			q.Stdin = r.boolean()
		case "stdout":
			q.Stdout = r.boolean()
		case "stderr":
			q.Stderr = r.boolean()
		default:
			r.skip()
		}
	})
	return q, r.end()
}

// DecodeLogLine reads what counts of a line of an OCI runtime's log. The strings
// share the memory of b.
func DecodeLogLine(b []byte) (level, msg string, err error) {
	r := reader{b: b}
	r.object(func(key string) {
		switch key {
		case "level":
			level = r.str()
		case "msg":
			msg = r.str()
		default:
			r.skip()
		}
	})
	return level, msg, r.end()
}

// DecodeWaited reads what an OCI runtime's wait prints: the exit code. It is
// known if the runtime tells one that a process can have.
func DecodeWaited(b []byte) (code int32, known bool) {
	status := int64(-1)
	r := reader{b: b}
	r.object(func(key string) {
		if key == "exitStatus" {
			status = r.integer()
			return
		}
		r.skip()
	})
	if r.end() != nil || status < 0 || status > 255 {
		return 0, false
	}
	return int32(status), true
}
