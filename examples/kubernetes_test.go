package examples

import (
	"strconv"
	"strings"
	"testing"
)

// The parts of Kubernetes' objects that the manifests use; a field that is not here is refused. The names are those of
// the API reference, v1 and apps/v1.

type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Spec       spec
}

type metadata struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
}

// spec is that of a Pod, a Deployment, a StatefulSet or a headless Service.
type spec struct {
	podSpec   `yaml:",inline"`
	Replicas  int
	Service   string `yaml:"serviceName"`
	Selector  any    // matchLabels of a workload, labels of a Service
	Template  podTemplate
	Claims    []claim `yaml:"volumeClaimTemplates"`
	ClusterIP string  `yaml:"clusterIP"`
}

type podTemplate struct {
	Metadata metadata
	Spec     podSpec
}

type podSpec struct {
	Grace    int   `yaml:"terminationGracePeriodSeconds"`
	Token    *bool `yaml:"automountServiceAccountToken"`
	Security struct {
		FSGroup int    `yaml:"fsGroup"`
		Change  string `yaml:"fsGroupChangePolicy"`
	} `yaml:"securityContext"`
	PullSecrets  []map[string]string `yaml:"imagePullSecrets"`
	NodeSelector map[string]string   `yaml:"nodeSelector"`
	Tolerations  []map[string]string
	Init         []container `yaml:"initContainers"`
	Containers   []container
	Volumes      []volume
}

type container struct {
	Name          string
	Image         string
	PullPolicy    string `yaml:"imagePullPolicy"`
	RestartPolicy string `yaml:"restartPolicy"`
	Env           []struct{ Name, Value string }
	Ports         []port
	Startup       *probe `yaml:"startupProbe"`
	Liveness      *probe `yaml:"livenessProbe"`
	Readiness     *probe `yaml:"readinessProbe"`
	Resources     resources
	Security      struct {
		NonRoot      bool                    `yaml:"runAsNonRoot"`
		User         int                     `yaml:"runAsUser"`
		Group        int                     `yaml:"runAsGroup"`
		Escalation   *bool                   `yaml:"allowPrivilegeEscalation"`
		ReadOnly     bool                    `yaml:"readOnlyRootFilesystem"`
		Capabilities struct{ Drop []string } `yaml:"capabilities"`
		Seccomp      struct{ Type string }   `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Mounts []mount `yaml:"volumeMounts"`
}

type port struct {
	Name   string
	Number int `yaml:"containerPort"`
}

type probe struct {
	HTTP struct {
		Path string
		Port string
	} `yaml:"httpGet"`
	Period   int `yaml:"periodSeconds"`
	Timeout  int `yaml:"timeoutSeconds"`
	Failures int `yaml:"failureThreshold"`
}

type resources struct{ Requests, Limits map[string]string }

type mount struct {
	Name     string
	Path     string `yaml:"mountPath"`
	ReadOnly bool   `yaml:"readOnly"`
}

type volume struct {
	Name     string
	EmptyDir *struct {
		SizeLimit string `yaml:"sizeLimit"`
	} `yaml:"emptyDir"`
	Secret *struct {
		Name  string `yaml:"secretName"`
		Mode  int    `yaml:"defaultMode"`
		Items []struct{ Key, Path string }
	}
}

type claim struct {
	Metadata metadata
	Spec     struct {
		Access    []string `yaml:"accessModes"`
		Class     string   `yaml:"storageClassName"`
		Resources resources
	}
}

// mebibytes reads the one unit that is used here.
func mebibytes(t *testing.T, quantity string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(quantity, "Mi"), 10, 64)
	if err != nil || !strings.HasSuffix(quantity, "Mi") {
		t.Fatalf("%q is no number of Mi", quantity)
	}
	return n << 20
}
