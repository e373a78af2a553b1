#include "orcactl/init.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/bus/bus.h"
#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "common/tls/cert.h"
#include "orcactl/context.h"
#include "orcactl/files.h"

#define CA_DAYS 3650
#define TOKEN_LETTERS 52 /* of 5 bits: 260 */

enum { PORT_API, PORT_GATEWAY, PORT_STORE, PORT_RAFT, PORT_GOSSIP, PORT_HTTP, PORT_HTTPS, PORT_COUNT };
static const char *const port_names[PORT_COUNT] = {"api", "gateway", "store", "raft", "gossip", "http", "https"};
static const char *const key_names[] = {"store", "apiserver", "scheduler", "agent", "proxy", "keeper", "admin"};

struct plan {
  char name[64], address[INET6_ADDRSTRLEN], node_toml[PATH_MAX], config_dir[PATH_MAX], state_dir[PATH_MAX], run_dir[PATH_MAX], key_dir[PATH_MAX];
  char api_dir[PATH_MAX]; /* what the apiserver alone may read: the CA's key, master.key, the first token */
  bool system_wide;       /* in /etc, /var/lib and /run */
  const char *docker, *context;
  uint16_t ports[PORT_COUNT];
  char cluster_id[17];
};

/* ---- what to make ---- */

/* The host name in the form of a node's name: lower case, [-a-z0-9], up to the first dot. */
static void name_of_host(char out[64]) {
  char host[256] = "";
  if (gethostname(host, sizeof host - 1) < 0)
    host[0] = 0;
  size_t n = 0;
  for (const char *p = host; *p && *p != '.' && n < 62; p++) {
    char c = (char)tolower((unsigned char)*p);
    if (isalnum((unsigned char)c) || (c == '-' && n > 0))
      out[n++] = c;
  }
  while (n && out[n - 1] == '-')
    n--;
  out[n] = 0;
  if (!n)
    snprintf(out, 64, "n1");
}

static int join(char out[PATH_MAX], const char *root, const char *below, struct err *err) {
  if ((size_t)snprintf(out, PATH_MAX, "%s/%s", root, below) >= PATH_MAX)
    return err_set(err, ERR_INVALID, "path too long: %s", root);
  return 0;
}

static int plan_roots(struct plan *plan, const char *root, struct err *err) {
  plan->system_wide = !root;
  if (!root) {
    snprintf(plan->node_toml, sizeof plan->node_toml, "/etc/orca/node.toml");
    snprintf(plan->key_dir, sizeof plan->key_dir, "/etc/orca/keys");
    snprintf(plan->state_dir, sizeof plan->state_dir, "/var/lib/orca");
    snprintf(plan->run_dir, sizeof plan->run_dir, "/run/orca");
    return 0;
  }
  char absolute[PATH_MAX];
  if (files_mkdir_p(root, 0755, err) < 0)
    return -1;
  if (!realpath(root, absolute))
    return err_errno(err, errno, "%s", root);
  if (strpbrk(absolute, "\"\\\n"))
    return err_set(err, ERR_INVALID, "a folder whose name has quotes, backslashes or line ends can't be used: %s", absolute);
  return join(plan->node_toml, absolute, "node.toml", err) || join(plan->key_dir, absolute, "keys", err) ||
                 join(plan->state_dir, absolute, "state", err) || join(plan->run_dir, absolute, "run", err)
             ? -1
             : 0;
}

static int plan_paths(struct plan *plan, const char *root, struct err *err) {
  return plan_roots(plan, root, err) < 0 ? -1 : join(plan->api_dir, plan->key_dir, "apiserver", err);
}

static int plan_identity(struct plan *plan, const struct init_options *o, struct err *err) {
  if (o->name)
    snprintf(plan->name, sizeof plan->name, "%s", o->name);
  else
    name_of_host(plan->name);
  if (!spec_name_valid(plan->name) || (o->name && strcmp(plan->name, o->name) != 0))
    return err_set(err, ERR_INVALID, "not a node name: %s (lower-case letters, digits and -, at most 63)", o->name ? o->name : plan->name);
  const char *address = o->address ? o->address : "127.0.0.1";
  struct in6_addr any;
  if (inet_pton(AF_INET, address, &any) != 1 && inet_pton(AF_INET6, address, &any) != 1)
    return err_set(err, ERR_INVALID, "not an IP address: %s", address);
  snprintf(plan->address, sizeof plan->address, "%s", address);
  plan->docker = o->docker ? o->docker : "/run/docker.sock";
  plan->context = o->context ? o->context : "default";
  if (!spec_name_valid(plan->context))
    return err_set(err, ERR_INVALID, "not a context name: %s", plan->context);
  struct sockaddr_un un;
  if (strlen(plan->run_dir) + sizeof "/agent.sock" > sizeof un.sun_path)
    return err_set(err, ERR_INVALID, "%s: too long for the sockets in it (%zu characters at most)", plan->run_dir,
                   sizeof un.sun_path - sizeof "/agent.sock");
  return crypto_random_id(plan->cluster_id, sizeof plan->cluster_id - 1, err);
}

/* The token of a cluster elsewhere is not there a second time. */
static int plan_context(const struct plan *plan, struct err *err) {
  json_t *all = context_all(err);
  if (!all)
    return -1;
  const char *url = json_string_value(json_object_get(json_object_get(json_object_get(all, "contexts"), plan->context), "url"));
  int rc =
      !url || strncmp(url, "https://", 8) != 0
          ? 0
          : err_set(err, ERR_CONFLICT, "context %s leads to %.200s: give the new cluster's a name of its own, --context NAME", plan->context, url);
  json_decref(all);
  return rc;
}

/* 0: it can be listened on; else why not. */
static int port_taken(const char *address, uint16_t port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  bool is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1)
    return EINVAL;
  int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return errno;
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  bool ok = bind(fd, is_v4 ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6, is_v4 ? sizeof v4 : sizeof v6) == 0 && listen(fd, 1) == 0;
  int why = ok ? 0 : errno;
  close(fd);
  return why;
}

static bool port_planned(const struct plan *plan, unsigned before, uint16_t port) {
  for (unsigned i = 0; i < before; i++)
    if (plan->ports[i] == port)
      return true;
  return false;
}

static int refuse_port(const struct plan *plan, unsigned i, uint32_t port, int why, struct err *err) {
  if (why == EADDRNOTAVAIL)
    return err_set(err, ERR_INVALID, "--address %s: that is no address of this machine (`ip address` shows them)", plan->address);
  return err_set(err, why == EACCES ? ERR_DENIED : ERR_CONFLICT, "port %" PRIu32 " (%s) %s%s: %sor take what is free: --free-ports", port,
                 port_names[i], why == EACCES ? "is root's to open on " : "is taken on ", plan->address,
                 i == PORT_HTTP    ? "name another, --http-port PORT, "
                 : i == PORT_HTTPS ? "name another, --https-port PORT, "
                                   : "stop what listens there, ");
}

static int plan_ports(struct plan *plan, const struct init_options *o, struct err *err) {
  static const uint16_t defaults[PORT_COUNT] = {6880, 6881, 6882, 6883, 6884, 80, 443};
  for (unsigned i = 0; i < PORT_COUNT; i++) {
    uint32_t first = i == PORT_HTTP && o->http_port ? o->http_port : i == PORT_HTTPS && o->https_port ? o->https_port : defaults[i];
    uint32_t port = first;
    int why = 0;
    while (port <= UINT16_MAX && (port_planned(plan, i, (uint16_t)port) || (why = port_taken(plan->address, (uint16_t)port)) != 0)) {
      if (!o->free_ports || why == EADDRNOTAVAIL)
        return refuse_port(plan, i, port, why, err);
      port = port < 1024 ? port + 8000 : port + 10;
    }
    if (port > UINT16_MAX)
      return err_set(err, ERR_CONFLICT, "no free port from %" PRIu32 " on for %s", first, port_names[i]);
    plan->ports[i] = (uint16_t)port;
  }
  return 0;
}

/* ---- making it ---- */

static int exists(const char *folder, const char *name, char out[PATH_MAX], struct err *err) {
  if (join(out, folder, name, err) < 0)
    return -1;
  return access(out, F_OK) == 0;
}

static int make_bus_keys(const struct plan *plan, struct err *err) {
  for (size_t i = 0; i < sizeof key_names / sizeof *key_names; i++) {
    char file[80], path[PATH_MAX];
    snprintf(file, sizeof file, "%s.pub", key_names[i]);
    int there = exists(plan->key_dir, file, path, err);
    if (there < 0)
      return -1;
    if (there)
      continue;
    struct bus_key_pair pair;
    int rc = bus_key_new(&pair, err) < 0 || bus_key_save(plan->key_dir, key_names[i], &pair, err) < 0 ? -1 : 0;
    crypto_wipe(&pair, sizeof pair);
    if (rc < 0)
      return -1;
  }
  return 0;
}

static int make_master_key(const struct plan *plan, struct err *err) {
  char path[PATH_MAX];
  int there = exists(plan->api_dir, "master.key", path, err);
  if (there)
    return there < 0 ? -1 : 0;
  uint8_t key[CRYPTO_KEY_LEN];
  char hex[2 * CRYPTO_KEY_LEN + 1];
  if (crypto_random(key, sizeof key, err) < 0)
    return -1;
  crypto_hex(key, sizeof key, hex);
  int rc = files_write(path, hex, sizeof hex - 1, 0400, err);
  crypto_wipe(key, sizeof key);
  crypto_wipe(hex, sizeof hex);
  return rc;
}

static bool add_extension(X509 *cert, int nid, const char *value) {
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
  X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
  bool ok = ext && X509_add_ext(cert, ext, -1) == 1;
  X509_EXTENSION_free(ext);
  return ok;
}

static X509 *sign_ca(EVP_PKEY *key, const char *cluster_id) {
  X509 *cert = X509_new();
  uint64_t serial;
  char common_name[64];
  snprintf(common_name, sizeof common_name, "orca cluster %s", cluster_id);
  X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
  bool ok = cert && crypto_random(&serial, sizeof serial, NULL) == 0 && X509_set_version(cert, X509_VERSION_3) == 1 &&
            ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) == 1 && X509_gmtime_adj(X509_getm_notBefore(cert), -3600) &&
            X509_time_adj_ex(X509_getm_notAfter(cert), CA_DAYS, 0, NULL) &&
            X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) == 1 &&
            X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
            add_extension(cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
            add_extension(cert, NID_key_usage, "critical,keyCertSign,cRLSign") && add_extension(cert, NID_subject_key_identifier, "hash") &&
            X509_sign(cert, key, EVP_sha256()) > 0;
  if (!ok) {
    X509_free(cert);
    return NULL;
  }
  return cert;
}

static int save_pem(BIO *bio, const char *path, mode_t mode, struct err *err) {
  char *text;
  long len = BIO_get_mem_data(bio, &text);
  int rc = len > 0 ? files_write(path, text, (size_t)len, mode, err) : err_set(err, ERR_INTERNAL, "no PEM was made for %s", path);
  if (len > 0)
    crypto_wipe(text, (size_t)len);
  return rc;
}

/* The cluster's own CA: P-256, self-signed. The key is written first; the certificate says that both are there. */
static int make_ca(const struct plan *plan, struct err *err) {
  char cert_path[PATH_MAX], key_path[PATH_MAX];
  int there = exists(plan->key_dir, "ca.pem", cert_path, err);
  if (there)
    return there < 0 ? -1 : 0;
  if (join(key_path, plan->api_dir, "ca.key", err) < 0)
    return -1;
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *cert = key ? sign_ca(key, plan->cluster_id) : NULL;
  BIO *key_pem = BIO_new(BIO_s_mem()), *cert_pem = BIO_new(BIO_s_mem());
  int rc;
  if (!cert || !key_pem || !cert_pem || PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) != 1 ||
      PEM_write_bio_X509(cert_pem, cert) != 1)
    rc = err_set(err, ERR_INTERNAL, "the cluster's CA could not be made");
  else
    rc = save_pem(key_pem, key_path, 0400, err) < 0 || save_pem(cert_pem, cert_path, 0444, err) < 0 ? -1 : 0;
  BIO_free(key_pem);
  BIO_free(cert_pem);
  X509_free(cert);
  EVP_PKEY_free(key);
  return rc;
}

/* The apiserver imports the hash when its store has no token yet; the text stays with orcactl. */
static int make_first_token(const struct plan *plan, bool use, struct err *err) {
  struct context context = {0};
  snprintf(context.name, sizeof context.name, "%s", plan->context);
  /* As the apiserver listens: on loopback, and on the node's own address when that is a loopback one. */
  snprintf(context.url, sizeof context.url, "http://%s:%u", strncmp(plan->address, "127.", 4) == 0 ? plan->address : "127.0.0.1",
           plan->ports[PORT_API]);
  char letters[TOKEN_LETTERS + 1], path[PATH_MAX], hex[65];
  uint8_t hash[32];
  if (crypto_random_id(letters, TOKEN_LETTERS, err) < 0 || join(path, plan->api_dir, "first-token", err) < 0)
    return -1;
  snprintf(context.token, sizeof context.token, "orca_%s", letters);
  crypto_wipe(letters, sizeof letters);
  crypto_sha256(context.token, strlen(context.token), hash);
  crypto_hex(hash, sizeof hash, hex);
  int rc = context_save(&context, use, err) < 0 || files_write(path, hex, 64, 0400, err) < 0 ? -1 : 0;
  context_free(&context);
  return rc;
}

static int read_public_key(const struct plan *plan, const char *name, char out[BUS_KEY_LEN + 1], struct err *err) {
  char file[80], path[PATH_MAX];
  struct buf text = BUF_INIT(BUS_KEY_LEN + 2);
  snprintf(file, sizeof file, "%s.pub", name);
  int rc = join(path, plan->key_dir, file, err) < 0 ? -1 : files_read(path, false, &text, err);
  if (rc == 0 && strcspn(buf_str(&text), "\n") != BUS_KEY_LEN)
    rc = err_set(err, ERR_INVALID, "%s is not a public key", path);
  if (rc == 0)
    snprintf(out, BUS_KEY_LEN + 1, "%.*s", BUS_KEY_LEN, buf_str(&text));
  buf_free(&text);
  return rc;
}

/* ---- whose it is ---- */

static int give(const char *path, uid_t user, gid_t group, mode_t mode, struct err *err) {
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  int rc = fd < 0 || fchown(fd, user, group) < 0 || fchmod(fd, mode) < 0 ? err_errno(err, errno, "give %s its owner", path) : 0;
  if (fd >= 0)
    close(fd);
  return rc;
}

static int give_key(const struct plan *plan, const char *daemon, gid_t group, struct err *err) {
  char user[64], file[80], path[PATH_MAX];
  snprintf(user, sizeof user, "orca-%s", daemon);
  snprintf(file, sizeof file, "%s.key", daemon);
  const struct passwd *owner = getpwnam(user);
  if (!owner) /* admin.key is root's */
    return 0;
  return join(path, plan->key_dir, file, err) < 0 ? -1 : give(path, owner->pw_uid, group, 0400, err);
}

/* Where the daemons have users of their own (deploy/systemd), each gets its key, the apiserver its folder, and the group what is shared. The folder
 * comes last: from then on its files are not root's to change. */
static int give_owners(const struct plan *plan, struct err *err) {
  static const char *const own[] = {"ca.key", "master.key", "first-token"};
  const struct group *shared = getgrnam("orca");
  const struct passwd *user = getpwnam("orca-apiserver");
  if (geteuid() != 0 || !plan->system_wide || !shared || !user)
    return 0;
  gid_t group = shared->gr_gid;
  uid_t apiserver = user->pw_uid;
  if (give(plan->config_dir, 0, 0, 0755, err) < 0 || give(plan->key_dir, 0, group, 0750, err) < 0 || give(plan->state_dir, 0, 0, 0755, err) < 0 ||
      give(plan->run_dir, 0, group, 03770, err) < 0)
    return -1;
  for (size_t i = 0; i < sizeof key_names / sizeof *key_names; i++)
    if (give_key(plan, key_names[i], group, err) < 0)
      return -1;
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    char path[PATH_MAX];
    if (join(path, plan->api_dir, own[i], err) < 0 || give(path, apiserver, group, 0400, err) < 0)
      return -1;
  }
  return give(plan->api_dir, apiserver, group, 0700, err);
}

static int write_node_toml(const struct plan *plan, struct err *err) {
  char gateway_key[BUS_KEY_LEN + 1], store_key[BUS_KEY_LEN + 1];
  if (read_public_key(plan, "apiserver", gateway_key, err) < 0 || read_public_key(plan, "store", store_key, err) < 0)
    return -1;
  struct buf text = BUF_INIT(1 << 16);
  buf_printf(&text,
             "# Written by orcactl init. What this machine's daemons need before there is a cluster to ask.\n"
             "[node]\nname = \"%s\"\naddress = \"%s\"\nrole = \"master\"\nstate_dir = \"%s\"\nrun_dir = \"%s\"\nkey_dir = \"%s\"\ndocker = \"%s\"\n\n"
             "[cluster]\nid = \"%s\"\n",
             plan->name, plan->address, plan->state_dir, plan->run_dir, plan->key_dir, plan->docker, plan->cluster_id);
  /* Z85 has no quote and no backslash: its text stands in a literal string as it is. */
  buf_printf(&text, "masters = [{ name = \"%s\", address = \"%s\", key = '%s', store_key = '%s' }]\n\n[ports]\n", plan->name, plan->address,
             gateway_key, store_key);
  for (unsigned i = 0; i < PORT_COUNT; i++)
    buf_printf(&text, "%s = %u\n", port_names[i], plan->ports[i]);
  int rc = buf_failed(&text) ? err_set(err, ERR_MEMORY, "no memory") : files_write(plan->node_toml, text.data, text.len, 0644, err);
  buf_free(&text);
  return rc;
}

static int read_ca_hash(const struct plan *plan, char ret[65], struct err *err) {
  char path[PATH_MAX];
  struct buf pem = BUF_INIT(TLS_PEM_MAX);
  struct tls_certificate ca;
  int rc = join(path, plan->key_dir, "ca.pem", err) < 0 || files_read(path, false, &pem, err) < 0 ||
                   tls_certificate_read(buf_str(&pem), pem.len, &ca, err) < 0
               ? -1
               : 0;
  if (rc == 0)
    memcpy(ret, ca.sha256, sizeof ca.sha256);
  buf_free(&pem);
  return rc;
}

int init_run(const struct init_options *options, char *node_toml, char ca_hash[65], struct err *err) {
  struct plan plan = {0};
  if (!options->root && geteuid() != 0)
    return err_set(err, ERR_DENIED, "a node's files in /etc/orca are root's to make: run it with sudo, or in a folder of your own: --root DIR");
  if (plan_paths(&plan, options->root, err) < 0)
    return -1;
  if (access(plan.node_toml, F_OK) == 0)
    return err_set(err, ERR_CONFLICT, "%s exists: this node has been initialised already", plan.node_toml);
  snprintf(plan.config_dir, sizeof plan.config_dir, "%s", plan.node_toml);
  *strrchr(plan.config_dir, '/') = 0;
  if (plan_identity(&plan, options, err) < 0 || plan_context(&plan, err) < 0 || plan_ports(&plan, options, err) < 0 ||
      files_mkdir_p(plan.config_dir, 0755, err) < 0 || files_mkdir_p(plan.key_dir, 0700, err) < 0 || files_mkdir_p(plan.api_dir, 0700, err) < 0 ||
      files_mkdir_p(plan.state_dir, 0700, err) < 0 || files_mkdir_p(plan.run_dir, 0755, err) < 0 || make_bus_keys(&plan, err) < 0 ||
      make_master_key(&plan, err) < 0 || make_ca(&plan, err) < 0 || make_first_token(&plan, options->use, err) < 0 || give_owners(&plan, err) < 0 ||
      read_ca_hash(&plan, ca_hash, err) < 0 || write_node_toml(&plan, err) < 0)
    return -1;
  snprintf(node_toml, PATH_MAX, "%s", plan.node_toml);
  return 0;
}
