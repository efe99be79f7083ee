// Threads that run one at a time and hand over where they say: the threads of a model.
#ifndef NETDEV_MODELS_COROUTINE_H
#define NETDEV_MODELS_COROUTINE_H

typedef struct coroutine coroutine;

// A coroutine that has not begun; `body(context)` never returns. It lives until the process ends.
coroutine *coroutine_make(void (*body)(void *), void *context);

// Runs it from where it handed over last to where it does so next.
void coroutine_resume(coroutine *thread);

// Hands over to whoever resumed the coroutine that runs.
void coroutine_yield(void);

#endif
