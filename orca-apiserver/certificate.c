#include "orca-apiserver/certificate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/key_file.h"
#include "common/log.h"
#include "common/spec/read_file.h"
#include "common/spec/spec.h"
#include "common/tls/cert.h"

#define NAME_SIZE 256

/* ---- names ---- */

static void add(char room[API_CERTIFICATE_NAMES_MAX][NAME_SIZE], size_t *count, const char *name) {
  if (!*name || strlen(name) >= NAME_SIZE || *count >= API_CERTIFICATE_NAMES_MAX)
    return;
  for (size_t i = 0; i < *count; i++)
    if (strcmp(room[i], name) == 0)
      return;
  snprintf(room[(*count)++], NAME_SIZE, "%s", name);
}

/* However each is written: "fd00::1", "FD00:0::1". */
static bool same_address(const char *a, const char *b) {
  struct in6_addr x, y;
  if (inet_pton(AF_INET6, a, &x) == 1 && inet_pton(AF_INET6, b, &y) == 1)
    return IN6_ARE_ADDR_EQUAL(&x, &y);
  return strcmp(a, b) == 0;
}

static bool is_anothers(const struct api_cache *cache, const char *node, const char *address) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_NODES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Node *other = API_MSG(&all[i], Model__Node);
    if (strcmp(PB_STR(other->name), node) != 0 && same_address(PB_STR(other->address), address))
      return true;
  }
  return false;
}

size_t api_certificate_names(const struct api_cache *cache, const char *node, char room[API_CERTIFICATE_NAMES_MAX][NAME_SIZE]) {
  size_t count = 0;
  const Model__Node *record = api_cache_node(cache, node, NULL);
  const Model__ClusterSpec *cluster = api_cache_cluster(cache, NULL);
  char text[NAME_SIZE];
  add(room, &count, node);
  add(room, &count, record ? PB_STR(record->address) : "");
  add(room, &count, "localhost");
  add(room, &count, "127.0.0.1");
  if (cluster && *PB_STR(cluster->domain) && (size_t)snprintf(text, sizeof text, "orca.%s", cluster->domain) < sizeof text)
    add(room, &count, text);
  for (size_t i = 0; cluster && i < cluster->n_api_listen; i++) {
    if (spec_listen_host(cluster->api_listen[i], text, sizeof text) && !is_anothers(cache, node, text))
      add(room, &count, text);
  }
  return count;
}

/* ---- signing ---- */

static int read_file(const char *dir, const char *name, bool is_private, struct buf *text, struct err *err) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
    return err_set(err, ERR_INVALID, "key_dir is too long");
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
  if (fd < 0)
    return err_errno(err, errno, "%s", path);
  int rc = (is_private ? key_file_check(fd, path, err) : 0) < 0 ? -1 : spec_read_fd(fd, path, text, err);
  close(fd);
  return rc;
}

static int sign(const struct api *api, const char *node, const Node__SignCertificate *ask, struct buf *chain, int64_t *not_after_s, struct err *err) {
  struct buf ca = BUF_INIT(TLS_PEM_MAX), key = BUF_INIT(TLS_PEM_MAX);
  char room[API_CERTIFICATE_NAMES_MAX][NAME_SIZE];
  const char *names[API_CERTIFICATE_NAMES_MAX];
  size_t count = api_certificate_names(&api->cache, node, room);
  for (size_t i = 0; i < count; i++)
    names[i] = room[i];
  int rc = -1;
  if (read_file(api->config->key_dir, "ca.pem", false, &ca, err) == 0 && read_file(api->config->key_dir, "apiserver/ca.key", true, &key, err) == 0) {
    struct tls_signing how = {.ca_pem = buf_str(&ca),
                              .ca_key_pem = buf_str(&key),
                              .common_name = node,
                              .names = names,
                              .name_count = count,
                              .now_s = api_now_ms(api) / 1000,
                              .life_s = INT64_C(86400) * API_CERTIFICATE_DAYS};
    rc = tls_sign(ask->request_der.data, ask->has_request_der ? ask->request_der.len : 0, &how, chain, not_after_s, err);
  }
  buf_free(&ca);
  tls_wipe(&key);
  return rc;
}

void api_certificate_sign(struct api *api, const char *node, struct bus_call *call, const Node__SignCertificate *ask) {
  struct buf chain = BUF_INIT(TLS_PEM_MAX);
  struct err err;
  int64_t not_after_s;
  if (sign(api, node, ask, &chain, &not_after_s, &err) < 0) {
    log_warn("no certificate for a proxy", "node", node, "error", err.msg);
    bus_fail(call, &err);
  } else {
    log_info("signed a certificate for a proxy", "node", node, "days", log_u64((uint64_t)(not_after_s - api_now_ms(api) / 1000) / 86400));
    Node__SignedCertificate certificate = NODE__SIGNED_CERTIFICATE__INIT;
    Node__Reply reply = NODE__REPLY__INIT;
    certificate.has_chain_pem = 1;
    certificate.chain_pem = (ProtobufCBinaryData){.data = chain.data, .len = chain.len};
    PB_SET(&certificate, not_after_ms, not_after_s * 1000);
    reply.body_case = NODE__REPLY__BODY_CERTIFICATE;
    reply.certificate = &certificate;
    bus_reply(call, &reply.base);
  }
  buf_free(&chain);
}
