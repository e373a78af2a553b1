/* login: a context for a cluster elsewhere. Its CA is taken for its hash, the token from the terminal without echo; both are tried before they are
 * kept. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "orcactl/api.h"
#include "orcactl/ask.h"
#include "orcactl/pin.h"
#include "orcactl/text.h"

#define PORT_API 6880

struct place {
  char host[254];
  uint16_t port;
  bool tls;
};

static bool is_loopback(const char *host) {
  struct in_addr v4;
  struct in6_addr v6;
  if (inet_pton(AF_INET, host, &v4) == 1)
    return (ntohl(v4.s_addr) >> 24) == 127;
  return strcmp(host, "localhost") == 0 || (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

static int parse_port(const char *text, uint16_t *ret) {
  unsigned long port = strspn(text, "0123456789") == strlen(text) && strlen(text) < 6 ? strtoul(text, NULL, 10) : 0;
  *ret = (uint16_t)port;
  return port && port <= 65535 ? 0 : -1;
}

/* [http://|https://]HOST[:PORT]. Without a scheme: TLS, but for this machine itself. */
static int parse_place(const char *text, bool pinned, struct place *ret, struct err *err) {
  bool http = strncmp(text, "http://", 7) == 0, https = strncmp(text, "https://", 8) == 0;
  const char *p = text + (http ? 7 : https ? 8 : 0);
  bool bracket = *p == '[';
  size_t len = bracket ? strcspn(++p, "]") : strcspn(p, ":/");
  const char *after = p + len + (bracket && p[len] == ']');
  const char *colon = strchr(p, ':');
  if (!bracket && colon && strchr(colon + 1, ':')) { /* an IPv6 address without brackets has no port */
    len = strcspn(p, "/");
    after = p + len;
  }
  *ret = (struct place){.port = PORT_API};
  if (!len || len >= sizeof ret->host || (bracket && p[len] != ']') ||
      strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:") < len)
    return err_set(err, ERR_INVALID, "not a host: %.100s (HOST or HOST:PORT)", text);
  memcpy(ret->host, p, len);
  size_t rest = strlen(after);
  char tail[16] = "";
  if (rest && after[rest - 1] == '/')
    rest--;
  if (rest >= sizeof tail)
    return err_set(err, ERR_INVALID, "not a port: %.20s", after);
  memcpy(tail, after, rest);
  if (*tail && (*tail != ':' || parse_port(tail + 1, &ret->port) < 0))
    return err_set(err, ERR_INVALID, "not a port: %s", tail);
  ret->tls = https || (!http && (pinned || !is_loopback(ret->host)));
  if (!ret->tls && !is_loopback(ret->host))
    return err_set(err, ERR_INVALID, "%s is not this machine: the token would go there in the clear. Away from it the API needs https://", ret->host);
  return 0;
}

/* A context's name out of the host's: "10.0.0.1" → "10-0-0-1". */
static void name_of(const char *host, char out[64]) {
  size_t n = 0;
  for (; *host && n < 63; host++) {
    char c = (char)tolower((unsigned char)*host);
    if (isalnum((unsigned char)c))
      out[n++] = c;
    else if (n && out[n - 1] != '-')
      out[n++] = '-';
  }
  while (n && out[n - 1] == '-')
    n--;
  out[n] = 0;
}

static int take_ca(struct ctl *ctl, const struct place *place, const char *expected, struct context *c, int *code, struct err *err) {
  char *pem = NULL, hash[65], question[512];
  if (!expected && (ctl->yes || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))) {
    *code =
        ctl_usage(ctl, "whose CA %.100s has, --yes can't know: give --ca-hash sha256:…, as `orcactl init` printed it on the master.", place->host);
    return -1;
  }
  if (pin_fetch_ca(place->host, place->port, expected, &pem, hash, err) < 0)
    return -1;
  if (!expected) {
    snprintf(question, sizeof question,
             "The CA of %.100s has the SHA-256 %s.\nIs it the one that `orcactl init` printed on the master (if not, somebody may be in between)?",
             place->host, hash);
    *code = ctl_confirm(ctl, question);
  }
  int rc = *code != CTL_OK ? -1 : strlen(pem) < sizeof c->ca ? 0 : err_set(err, ERR_TOO_LARGE, "the CA's certificate is too large");
  if (rc == 0)
    memcpy(c->ca, pem, strlen(pem) + 1);
  free(pem);
  return rc;
}

static int take_token(struct context *c, struct err *err) {
  struct buf text = BUF_INIT(1024);
  int rc = ask_hidden("Token (not shown): ", &text, err);
  size_t len = rc == 0 ? strcspn(buf_str(&text), "\r\n") : 0;
  while (len && buf_str(&text)[len - 1] == ' ')
    len--;
  if (rc == 0 && (!len || len >= sizeof c->token))
    rc = err_set(err, ERR_INVALID, len ? "that is too long for a token" : "no token was given");
  for (size_t i = 0; rc == 0 && i < len; i++)
    if (buf_str(&text)[i] <= ' ' || buf_str(&text)[i] >= 0x7f)
      rc = err_set(err, ERR_INVALID, "that is not a token: it has characters that none has");
  if (rc == 0) {
    memcpy(c->token, buf_str(&text), len);
    c->token[len] = 0;
  }
  if (text.data)
    crypto_wipe(text.data, text.size);
  buf_free(&text);
  return rc;
}

/* 1: the user doesn't want to; *code says how to end. */
static int make_context(struct ctl *ctl, const struct place *place, const char *expected, struct context *c, int *code, struct err *err) {
  if (ctl->context_name)
    snprintf(c->name, sizeof c->name, "%s", ctl->context_name);
  else
    name_of(place->host, c->name);
  if (!spec_name_valid(c->name) || (ctl->context_name && strcmp(c->name, ctl->context_name) != 0))
    return err_set(err, ERR_INVALID, "not a context's name: %s (--context NAME gives another one)", ctl->context_name ? ctl->context_name : c->name);
  snprintf(c->url, sizeof c->url, strchr(place->host, ':') ? "http%s://[%s]:%u" : "http%s://%s:%u", place->tls ? "s" : "", place->host,
           (unsigned)place->port);
  struct context there;
  if (context_load(c->name, &there, NULL) == 0) {
    char question[700];
    if (strcmp(there.url, c->url) != 0) {
      snprintf(question, sizeof question, "Context %s leads to %s. Let it lead to %s?", c->name, there.url, c->url);
      *code = ctl_confirm(ctl, question);
    }
    context_free(&there);
    if (*code != CTL_OK)
      return 1;
  }
  if (place->tls && take_ca(ctl, place, expected, c, code, err) < 0)
    return *code != CTL_OK ? 1 : -1;
  return take_token(c, err);
}

/* As `openssl x509 -fingerprint` prints it: 32 bytes with colons between. false: it is not written so. */
static bool without_colons(const char *text, char out[65]) {
  if (strlen(text) != 95)
    return false;
  for (size_t i = 0, n = 0; i < 95; i++)
    if (i % 3 == 2 && text[i] != ':')
      return false;
    else if (i % 3 != 2)
      out[n++] = text[i];
  out[64] = 0;
  return true;
}

int cmd_login(struct ctl *ctl) {
  const char *hash = ctl_value(ctl, "ca-hash");
  struct context context = {0};
  struct place place;
  struct err err;
  json_t *info = NULL;
  int code = CTL_OK;
  char plain[65];
  if (hash && strncmp(hash, "sha256:", 7) == 0)
    hash += 7;
  if (hash && without_colons(hash, plain))
    hash = plain;
  int rc = parse_place(ctl->argv[0], hash != NULL, &place, &err);
  if (rc == 0)
    rc = make_context(ctl, &place, hash, &context, &code, &err);
  if (rc == 0) {
    ctl->context = context;
    ctl->has_context = true;
    rc = api_call(ctl, "GET", "/api/v1/cluster/info", NULL, &info, &err);
  }
  if (rc == 0)
    rc = context_save(&context, true, &err);
  if (rc == 0) {
    char *cluster = text_cleaned(*api_str(info, "name") ? api_str(info, "name") : api_str(info, "id"));
    if (ctl->output != CTL_JSON)
      printf("Logged in to cluster %s at %s. Context %s is the current one.\n", cluster ? cluster : "", context.url, context.name);
    ctl_print_done(ctl, "current", json_string(context.name));
    free(cluster);
  } else if (rc < 0) {
    code = ctl_fail(ctl, &err);
    if (code == CTL_UNREACHABLE)
      fprintf(stderr, "`[api]` of the cluster's cluster.toml says where it listens: `listen`, and `tls` away from the master.\n");
  }
  json_decref(info);
  context_free(&context);
  return code;
}
