package critest

import (
	"os"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/cri-tools/pkg/framework"

	"github.com/criserver/criserver/test/images"
)

// The spec replaces the spec of the suite with the same name, which needs an image of a public registry.
var _ = ginkgo.Describe("[criserver] Image Manager", func() {
	f := framework.NewDefaultCRIFramework()

	ginkgo.It("public image with digest should be pulled and removed", func(ctx ginkgo.SpecContext) {
		const repository = "gcr.io/k8s-staging-cri-tools/test-image-digest"
		digest, err := images.Digest(os.Getenv(imagesVariable), repository+":latest")
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		byDigest := &runtimeapi.ImageSpec{Image: repository + "@" + digest}

		id, err := f.CRIClient.CRIImageClient.PullImage(ctx, byDigest, nil, nil)
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		pulled := framework.ImageStatus(ctx, f.CRIClient.CRIImageClient, byDigest.Image)
		gomega.Expect(pulled).NotTo(gomega.BeNil())
		gomega.Expect(pulled.Id).To(gomega.Equal(id))
		gomega.Expect(pulled.RepoTags).To(gomega.BeEmpty())
		gomega.Expect(pulled.RepoDigests).To(gomega.Equal([]string{byDigest.Image}))

		gomega.Expect(f.CRIClient.CRIImageClient.RemoveImage(ctx, byDigest)).To(gomega.Succeed())
		gomega.Expect(framework.ImageStatus(ctx, f.CRIClient.CRIImageClient, byDigest.Image)).To(gomega.BeNil())
	})
})
