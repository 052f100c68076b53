# shellcheck shell=bash
# The parts of Kubernetes on one node, container runtime and cluster DNS: how each starts and how
# one sees that it answers. Creates no object in the cluster.

# Plain HTTPS with the administrator's certificate, inside the namespace.
inside_curl() {
    "${INSIDE[@]}" curl -sf --noproxy '*' --max-time 2 --cacert "$PKI/ca.crt" \
        --cert "$PKI/admin.crt" --key "$PKI/admin.key" "$@"
}

# Its data dies with the bed, so it need not wait for the disk.
start_etcd() {
    spawn etcd "$KUBE_BIN/etcd" --data-dir "$BED_DIR/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
}
probe_etcd() { inside_curl http://127.0.0.1:2379/health; }

start_apiserver() {
    spawn apiserver "$KUBE_BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$NODE_IP" --bind-address=0.0.0.0 --secure-port=6443 \
        --service-cluster-ip-range="$SERVICE_CIDR" --allow-privileged=true --profiling=false \
        --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
        --service-account-key-file="$PKI/service-accounts.key" \
        --service-account-signing-key-file="$PKI/service-accounts.key" \
        --service-account-issuer=https://kubernetes.default.svc --authorization-mode=Node,RBAC \
        --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" \
        --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP
}
probe_apiserver() { inside_curl "https://$NODE_IP:6443/readyz"; }

# Every controller fetches a token of its own first; with the default rate that alone takes 5 s.
start_controllers() {
    spawn controllers "$KUBE_BIN/kube-controller-manager" --kubeconfig="$PKI/controllers.conf" --leader-elect=false \
        --use-service-account-credentials --service-account-private-key-file="$PKI/service-accounts.key" \
        --root-ca-file="$PKI/ca.crt" --cluster-signing-cert-file="$PKI/ca.crt" \
        --cluster-signing-key-file="$PKI/ca.key" --allocate-node-cidrs=false --pvclaimbinder-sync-period=2s \
        --kube-api-qps=200 --kube-api-burst=400
}
probe_controllers() { inside_curl -k https://127.0.0.1:10257/healthz; }

start_scheduler() {
    spawn scheduler "$KUBE_BIN/kube-scheduler" --kubeconfig="$PKI/scheduler.conf" --leader-elect=false
}
probe_scheduler() { inside_curl -k https://127.0.0.1:10259/healthz; }

# restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox would fail.
start_containerd() {
    mkdir -p "$BED_DIR/containerd" "$BED_DIR/cni"
    cat >"$BED_DIR/containerd/config.toml" <<TOML
version = 2
root = "$BED_DIR/containerd/root"
state = "/run/containerd"
[grpc]
  address = "$CONTAINERD_SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$BED_DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
TOML
    cat >"$BED_DIR/cni/10-bed.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$BED_DIR/cni/ipam",
            "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    spawn containerd containerd -c "$BED_DIR/containerd/config.toml"
}
probe_containerd() { bed_ctr version; }

bed_ctr() { ctr -a "$CONTAINERD_SOCKET" -n k8s.io "$@"; }

# oomScoreAdj and maxOpenFiles stay within what a process without CAP_SYS_RESOURCE may ask for.
# The disk is shared with everything else on the machine, so a full one must not evict pods. Tests
# kill their containers often: a restart is never put off for more than two seconds.
start_kubelet() {
    mkdir -p "$BED_DIR/kubelet/logs"
    cat >"$BED_DIR/kubelet/config.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet.crt
tlsPrivateKeyFile: $PKI/kubelet.key
containerRuntimeEndpoint: unix://$CONTAINERD_SOCKET
podLogsDir: $BED_DIR/kubelet/logs
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
resolvConf: $BED_DIR/resolv.conf
maxPods: 110
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi"}
nodeStatusUpdateFrequency: 5s
serializeImagePulls: false
registryPullQPS: 0
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
YAML
    spawn kubelet env AWS_EC2_METADATA_DISABLED=true "$KUBE_BIN/kubelet" --config="$BED_DIR/kubelet/config.yaml" \
        --kubeconfig="$PKI/kubelet.conf" --hostname-override="$NODE" --node-ip="$NODE_IP" \
        --root-dir="$BED_DIR/kubelet/root" --cert-dir="$PKI"
}
probe_kubelet() {
    inside_curl "https://$NODE_IP:6443/api/v1/nodes/$NODE" |
        tr -d ' \n' | grep -Eq '"type":"Ready","status":"True"'
}

# The short period brings new and ended pods into Services at once, where the default waits a second.
start_proxy() {
    spawn proxy "$KUBE_BIN/kube-proxy" --kubeconfig="$PKI/proxy.conf" --hostname-override="$NODE" \
        --proxy-mode=iptables --iptables-min-sync-period=100ms --cluster-cidr="$POD_CIDR" --oom-score-adj=0 --conntrack-max-per-core=0
}
probe_proxy() { inside_curl http://127.0.0.1:10256/healthz; }

# `template` answers what no other zone does: "no such name", at once.
start_dns() {
    printf '%s mariadb.bed redis.bed git.bed\n' "$NODE_IP" >"$BED_DIR/hosts"
    cat >"$BED_DIR/Corefile" <<CONF
.:53 {
    bind $NODE_IP
    errors
    ready $NODE_IP:8181
    hosts $BED_DIR/hosts bed
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $PKI/admin.conf bed
        ttl 1
    }
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
CONF
    spawn dns "$COREDNS_BIN/coredns" -conf "$BED_DIR/Corefile"
}
probe_dns() { inside_curl "http://$NODE_IP:8181/ready"; }
