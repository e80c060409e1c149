package wire

// DecodeSpec decodes a Spec. It ignores unknown fields, which a newer daemon may send. The
// strings share the memory of b.
func DecodeSpec(b []byte) (Spec, error) {
	var s Spec
	r := reader{b: b}
	r.object(func(key string) {
		switch key {
		case "version":
			s.Version = int(r.integer())
		case "id":
			s.ID = r.string()
		case "runDir":
			s.RunDir = r.string()
		case "bundle":
			s.Bundle = r.string()
		case "exitFile":
			s.ExitFile = r.string()
		case "runtime":
			s.Runtime = r.stringList()
		case "createArgs":
			s.CreateArgs = r.stringList()
		case "runtimeEnv":
			s.RuntimeEnv = r.stringList()
		case "stdioUID":
			s.StdioUID = uint32(r.integer())
		case "stdioGID":
			s.StdioGID = uint32(r.integer())
		case "logPath":
			s.LogPath = r.string()
		case "logSizeMax":
			s.LogSizeMax = r.integer()
		case "guest":
			s.Guest = r.boolean()
		case "restoreImages":
			s.RestoreImages = r.string()
		case "restoreArgs":
			s.RestoreArgs = r.stringList()
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
	return s, r.finish()
}

// DecodeRequest decodes a Request. The strings share the memory of b.
func DecodeRequest(b []byte) (Request, error) {
	var q Request
	r := reader{b: b}
	r.object(func(key string) {
		switch key {
		case "op":
			q.Op = r.string()
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
	return q, r.finish()
}

// DecodeLogLine decodes the level and the message of a line of an OCI runtime's log. The
// strings share the memory of b.
func DecodeLogLine(b []byte) (level, msg string, err error) {
	r := reader{b: b}
	r.object(func(key string) {
		switch key {
		case "level":
			level = r.string()
		case "msg":
			msg = r.string()
		default:
			r.skip()
		}
	})
	return level, msg, r.finish()
}

// DecodeExitStatus decodes the output of an OCI runtime's wait. known is false if the output
// contains no valid exit status.
func DecodeExitStatus(b []byte) (code int32, known bool) {
	status := int64(-1)
	r := reader{b: b}
	r.object(func(key string) {
		if key == "exitStatus" {
			status = r.integer()
			return
		}
		r.skip()
	})
	if r.finish() != nil || status < 0 || status > 255 {
		return 0, false
	}
	return int32(status), true
}
