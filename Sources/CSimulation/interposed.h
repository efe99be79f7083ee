// Functions of the C library that this module takes the place of.
#ifndef INTERPOSED_H
#define INTERPOSED_H

// The library's own function of this name, looked up once; several threads may do so at the same time, and find the same.
void *interposed_look_up(void **known, const char *name);

#endif
