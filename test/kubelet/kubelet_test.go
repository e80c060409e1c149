package kubelet

import "testing"

// TestStaticPods is one node's life: pods side by side, each with a subject of
// its own, then what concerns them all. When it ends the manifests are removed.
func TestStaticPods(t *testing.T) {
	n := newNode(t, "main", 81, map[string]any{
		"containerLogMaxSize": "64Ki", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s",
	})
	t.Run("pods", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *node){
			"everything at once":                          testFullPod,
			"exec, attach and port-forward":               testStreams,
			"logs grow and are followed":                  testLogs,
			"logs rotate without a gap":                   testRotation,
			"a failing liveness probe restarts":           testLivenessProbe,
			"a probe that hangs restarts":                 testHangingProbe,
			"an image as a volume":                        testImageVolume,
			"mounts are read-only and propagate":          testMounts,
			"fields of the pod reach the container":       testFields,
			"startup and readiness probes do not restart": testReadinessProbe,
			"a killed process is started again":           testKilledProcess,
			"out of memory is told as such":               testOutOfMemory,
			"crash loops back off with their message":     testCrashLoop,
			"pods that end":                               testJobs,
			"what cannot run says why":                    testBadPods,
			"containers that share processes":             testSharedProcesses,
			"the node's namespaces":                       testHostNamespaces,
			"users of its own":                            testUserNamespace,
			"deletion runs the hook and grants the time":  testDeletion,
			"who does not go is killed":                   testStubborn,
			"a changed manifest replaces the pod":         testUpdate,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, n)
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Run("figures", func(t *testing.T) { testFigures(t, n) })
	t.Run("survival", func(t *testing.T) { testSurvival(t, n) })
	t.Run("images that nobody uses go", func(t *testing.T) { testImageGarbage(t, n) })
}
