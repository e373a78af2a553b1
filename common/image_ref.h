/* Names of images: REGISTRY/PATH:TAG@DIGEST, as Docker reads them.
 * Threads: pure functions. */
#ifndef ORCA_COMMON_IMAGE_REF_H
#define ORCA_COMMON_IMAGE_REF_H

#include <stdbool.h>
#include <stddef.h>

struct image_ref {
  char registry[256]; /* "docker.io", "registry.example.com:5000" */
  char path[256];     /* "library/busybox" */
  char tag[129];      /* "" when there is a digest and no tag; "latest" when nothing is said */
  char digest[72];    /* "sha256:…" or "" */
};
/* -1: not a name of an image. */
int image_ref_parse(const char *text, struct image_ref *ret);
/* sha256:HEX alone: an image's id. */
bool image_ref_is_id(const char *text);
/* Its tag is latest (or none is said) and no digest pins it. */
bool image_ref_floats(const char *text);
/* The same repository? "busybox" and "docker.io/library/busybox@sha256:…" are. */
bool image_ref_same_repository(const char *a, const char *b);

#endif
