# shellcheck shell=bash
# The bed's certificate authority, certificates, kubeconfigs and passwords. Made once for a bed;
# what is already there stays.

make_pki() {
    [[ -e $PKI/complete ]] && return
    rm -rf "$PKI"
    mkdir -p "$PKI"
    chmod 700 "$PKI"
    ec_key ca
    openssl req -x509 -key "$PKI/ca.key" -out "$PKI/ca.crt" -days 3650 -subj "/CN=bed-$BED-ca" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
    ec_key service-accounts
    local names="IP:$NODE_IP,IP:127.0.0.1,DNS:localhost"
    certificate apiserver "/CN=kube-apiserver" serverAuth \
        "$names,IP:$API_SERVICE_IP,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
    certificate servers "/CN=bed-servers" serverAuth \
        "$names,DNS:mariadb,DNS:redis,DNS:git,DNS:mariadb.bed,DNS:redis.bed,DNS:git.bed"
    certificate kubelet "/O=system:nodes/CN=system:node:$NODE" serverAuth,clientAuth "$names,DNS:$NODE"
    certificate admin "/O=system:masters/CN=admin" clientAuth
    certificate controllers "/CN=system:kube-controller-manager" clientAuth
    certificate scheduler "/CN=system:kube-scheduler" clientAuth
    certificate proxy "/CN=system:kube-proxy" clientAuth
    local user
    for user in admin kubelet controllers scheduler proxy; do kubeconfig "$user"; done
    make_passwords
    : >"$PKI/complete"
}

ec_key() { openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/$1.key"; }

# certificate NAME SUBJECT USAGE [ALTERNATIVE NAMES]
certificate() {
    ec_key "$1"
    {
        printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=%s\n' "$3"
        [[ -z ${4:-} ]] || printf 'subjectAltName=%s\n' "$4"
    } >"$PKI/extensions"
    openssl req -new -key "$PKI/$1.key" -subj "$2" |
        openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 \
            -extfile "$PKI/extensions" -out "$PKI/$1.crt" 2>/dev/null
}

# Certificates are inside the file, so that it works from a Secret too.
kubeconfig() {
    cat >"$PKI/$1.conf" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: bed
  cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}
contexts:
- name: bed
  context: {cluster: bed, user: $1}
current-context: bed
YAML
}

make_passwords() {
    local server
    for server in mysql redis git; do openssl rand -hex 16 >"$PKI/$server.password"; done
}

password() { cat "$PKI/$1.password"; }
