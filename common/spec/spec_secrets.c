/* ${secrets.X} and secret_files: which secrets a spec names, and what becomes of a value that names some. */
#include <string.h>

#include "common/spec/ids.h"
#include "common/spec/spec.h"

#define SECRET_REF "${secrets."

/* The next reference of the text, past escaped ones: where it begins; *ret_end is behind its }. NULL: none is left. */
static const char *next_ref(const char *text, const char **ret_name, size_t *ret_len, const char **ret_end) {
  for (const char *p = text; (p = strstr(p, "${")); p += 2) {
    if (p > text && p[-1] == '$')
      continue;
    if (strncmp(p, SECRET_REF, sizeof SECRET_REF - 1) != 0)
      continue;
    const char *name = p + sizeof SECRET_REF - 1, *end = strchr(name, '}');
    if (!end || !spec_secret_name_valid(name, (size_t)(end - name)))
      continue;
    *ret_name = name;
    *ret_len = (size_t)(end - name);
    *ret_end = end + 1;
    return p;
  }
  return NULL;
}

int spec_secret_names(const Model__ServiceSpec *spec, spec_secret_name_fn *each, void *arg) {
  char name[SPEC_SECRET_NAME_MAX + 1];
  for (size_t i = 0; i < spec->n_env; i++) {
    const char *at = spec->env[i]->value, *found, *end;
    size_t len;
    while (at && next_ref(at, &found, &len, &end)) {
      memcpy(name, found, len);
      name[len] = 0;
      if (each(arg, name, false) < 0)
        return -1;
      at = end;
    }
  }
  for (size_t i = 0; i < spec->n_secret_files; i++)
    if (spec_secret_name_valid(spec->secret_files[i], strlen(spec->secret_files[i])) && each(arg, spec->secret_files[i], true) < 0)
      return -1;
  return 0;
}

static int one_is_enough(void *arg, const char *name, bool file) {
  (void)arg;
  (void)name;
  (void)file;
  return -1;
}

bool spec_names_secrets(const Model__ServiceSpec *spec) {
  return spec_secret_names(spec, one_is_enough, NULL) < 0;
}

static int add_secret(const char *name, size_t len, spec_secret_value_fn *lookup, void *arg, struct buf *to, struct err *err) {
  char text[SPEC_SECRET_NAME_MAX + 1];
  const uint8_t *value;
  size_t value_len;
  memcpy(text, name, len);
  text[len] = 0;
  if (!lookup(arg, text, &value, &value_len))
    return err_set(err, ERR_UNPROCESSABLE, "secret %s is missing", text);
  if (memchr(value, 0, value_len))
    return err_set(err, ERR_UNPROCESSABLE, "secret %s has a NUL byte: it can only be in secret_files", text);
  buf_add(to, value, value_len);
  return 0;
}

int spec_resolve_secrets(const char *value, spec_secret_value_fn *lookup, void *arg, struct buf *to, struct err *err) {
  const char *name, *end;
  size_t len;
  for (const char *p = value; *p;) {
    if (p[0] == '$' && p[1] == '$' && p[2] == '{') {
      buf_add_str(to, "${");
      p += 3;
    } else if (p[0] == '$' && p[1] == '{') {
      if (next_ref(p, &name, &len, &end) != p)
        return err_set(err, ERR_UNPROCESSABLE, "an unresolved ${ is left");
      if (add_secret(name, len, lookup, arg, to, err) < 0)
        return -1;
      p = end;
    } else {
      buf_add_byte(to, (uint8_t)*p++);
    }
  }
  return buf_failed(to) ? err_set(err, ERR_TOO_LARGE, "too long once its secrets are filled in") : 0;
}
