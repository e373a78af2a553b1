#include "orca-agent/docker_auth.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/crypto/crypto.h"

#define MAX_FILE ((size_t)1 << 20)
#define MAX_AUTH 8192u

static char *base64url(const char *text) {
  size_t len = strlen(text);
  char *out = malloc(CRYPTO_BASE64_LEN(len) + 1);
  if (!out)
    return NULL;
  crypto_base64(text, len, out);
  for (char *p = out; *p; p++)
    *p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
  return out;
}

/* USER:PASSWORD in standard base64. */
static char *decode(const char *auth) {
  size_t len = strlen(auth), n;
  if (!len || len > MAX_AUTH)
    return NULL;
  char *out = malloc(len);
  if (!out)
    return NULL;
  if (crypto_from_base64(auth, len, out, len - 1, &n) < 0) {
    free(out);
    return NULL;
  }
  out[n] = 0;
  return out;
}

/* How the same registry may be written in the file. */
static const json_t *entry_of(const json_t *auths, const char *registry) {
  char host[256], with_scheme[300];
  snprintf(with_scheme, sizeof with_scheme, "https://%s", registry);
  const json_t *entry = json_object_get(auths, registry);
  if (!entry)
    entry = json_object_get(auths, with_scheme);
  if (!entry && strcmp(registry, "docker.io") == 0)
    entry = json_object_get(auths, "https://index.docker.io/v1/");
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)auths, key, value) {
    if (entry)
      break;
    const char *start = strstr(key, "://");
    start = start ? start + 3 : key;
    snprintf(host, sizeof host, "%.*s", (int)strcspn(start, "/"), start);
    if (strcmp(host, registry) == 0)
      entry = value;
  }
  return entry;
}

char *docker_auth_header_from(const json_t *config, const char *registry) {
  const json_t *entry = entry_of(json_object_get(config, "auths"), registry);
  const char *auth = json_string_value(json_object_get(entry, "auth"));
  const char *token = json_string_value(json_object_get(entry, "identitytoken"));
  const char *server = strcmp(registry, "docker.io") == 0 ? "https://index.docker.io/v1/" : registry;
  json_t *body = NULL;
  char *pair = auth ? decode(auth) : NULL;
  char *colon = pair ? strchr(pair, ':') : NULL;
  if (token) {
    body = json_pack("{s:s, s:s}", "identitytoken", token, "serveraddress", server);
  } else if (colon) {
    *colon = 0;
    body = json_pack("{s:s, s:s, s:s}", "username", pair, "password", colon + 1, "serveraddress", server);
    *colon = ':';
  }
  char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
  char *encoded = text ? base64url(text) : NULL;
  char *header = NULL;
  if (encoded && asprintf(&header, "X-Registry-Auth: %s", encoded) < 0)
    header = NULL;
  json_decref(body);
  docker_auth_free(pair);
  docker_auth_free(text);
  docker_auth_free(encoded);
  return header;
}

void docker_auth_free(char *header) {
  if (header)
    crypto_wipe(header, strlen(header));
  free(header);
}

char *docker_auth_header(const char *registry) {
  const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
  char path[4096];
  if (!dir && !home) {
    const struct passwd *pw = getpwuid(geteuid());
    home = pw ? pw->pw_dir : "/root";
  }
  if (dir)
    snprintf(path, sizeof path, "%s/config.json", dir);
  else
    snprintf(path, sizeof path, "%s/.docker/config.json", home);
  FILE *f = fopen(path, "re");
  if (!f)
    return NULL;
  json_t *config = json_loadf(f, 0, NULL);
  fclose(f);
  char *header = docker_auth_header_from(config, registry);
  json_decref(config);
  return header;
}
