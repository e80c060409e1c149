package kubelet

import "testing"

// TestStaticPods runs one node: first pods that test one subject each, at the same
// time, and then tests that affect all pods. At the end the manifests are removed.
func TestStaticPods(t *testing.T) {
	n := newNode(t, "main", 81, map[string]any{
		"containerLogMaxSize": "64Ki", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s",
	})
	t.Run("pods", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *node){
			"everything at once":                                    testFullPod,
			"exec, attach and port-forward":                         testStreams,
			"following logs":                                        testLogs,
			"log rotation without lost lines":                       testRotation,
			"a failing liveness probe restarts":                     testLivenessProbe,
			"a probe that hangs restarts":                           testHangingProbe,
			"an image as a volume":                                  testImageVolume,
			"mounts are read-only and propagated":                   testMounts,
			"fields of the pod apply to the container":              testFields,
			"startup and readiness probes do not restart":           testReadinessProbe,
			"a killed container is restarted":                       testKilledProcess,
			"out of memory is reported":                             testOutOfMemory,
			"crash loops back off and report their message":         testCrashLoop,
			"pods that complete":                                    testJobs,
			"pods that cannot start report the reason":              testBadPods,
			"containers that share a PID namespace":                 testSharedProcesses,
			"host namespaces":                                       testHostNamespaces,
			"user namespace":                                        testUserNamespace,
			"deletion runs the hook and waits for the grace period": testDeletion,
			"a container that ignores its stop signal is killed":    testStubborn,
			"a changed manifest replaces the pod":                   testUpdate,
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
	t.Run("stats", func(t *testing.T) { testStats(t, n) })
	t.Run("survival", func(t *testing.T) { testSurvival(t, n) })
	t.Run("unused images are removed", func(t *testing.T) { testImageGarbage(t, n) })
}
