/* A perceptron with a hidden layer, y = tanh(x w + b) v, and its backward pass: a program to check with fastcheck.

       cc -O2 perceptron.c -lm -o perceptron      (-DREAL=float computes in single precision)
       ./perceptron start                         writes a start point: x.bin, w.bin, b.bin and v.bin
       ./perceptron evaluate probes               evaluates all points in the folder probes */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef REAL
#define REAL double
#endif

enum { N = 8, D = 12, H = 10, O = 4 };

static REAL x[N][D], w[D][H], b[H], v[H][O], a[N][H], y[N][O];
static REAL grad_x[N][D], grad_w[D][H], grad_b[H], grad_v[H][O], grad_y[N][O];

static void forward(void) {
    for (int n = 0; n < N; n++) {
        for (int h = 0; h < H; h++) {
            REAL z = b[h];
            for (int d = 0; d < D; d++) z += x[n][d] * w[d][h];
            a[n][h] = (REAL)tanh(z);
        }
        for (int o = 0; o < O; o++) {
            y[n][o] = 0;
            for (int h = 0; h < H; h++) y[n][o] += a[n][h] * v[h][o];
        }
    }
}

/* The gradient of sum(grad_y * y); the arrays of gradients are zero before. */
static void backward(void) {
    for (int n = 0; n < N; n++)
        for (int h = 0; h < H; h++) {
            REAL slope = 0;
            for (int o = 0; o < O; o++) {
                grad_v[h][o] += a[n][h] * grad_y[n][o];
                slope += v[h][o] * grad_y[n][o];
            }
            slope *= 1 - a[n][h] * a[n][h];
            grad_b[h] += slope;
            for (int d = 0; d < D; d++) {
                grad_w[d][h] += x[n][d] * slope;
                grad_x[n][d] += w[d][h] * slope;
            }
        }
#ifdef WRONG
    grad_w[3][4] *= (REAL)1.5; /* a mistake in one of 120 entries */
#endif
}

static FILE *file(const char *folder, const char *name, const char *mode) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.bin", folder, name);
    FILE *opened = fopen(path, mode);
    if (!opened) {
        perror(path);
        exit(1);
    }
    return opened;
}

static void save(const char *folder, const char *name, const void *array, size_t bytes) {
    FILE *to = file(folder, name, "wb");
    fwrite(array, bytes, 1, to);
    fclose(to);
}

/* Evaluate every point: the files hold the arrays of all points, one after another. */
static void evaluate(const char *folder) {
    FILE *xs = file(folder, "x", "rb"), *ws = file(folder, "w", "rb");
    FILE *bs = file(folder, "b", "rb"), *vs = file(folder, "v", "rb");
    FILE *cotangent = file(folder, "grad_y", "rb"), *ys = file(folder, "y", "wb");
    if (fread(grad_y, sizeof grad_y, 1, cotangent) != 1) exit(1);
    for (int point = 0; fread(x, sizeof x, 1, xs) && fread(w, sizeof w, 1, ws) && fread(b, sizeof b, 1, bs)
                        && fread(v, sizeof v, 1, vs); point++) {
        forward();
        fwrite(y, sizeof y, 1, ys);
        if (point == 0) { /* the start point, where the gradient is checked */
            backward();
            save(folder, "grad_x", grad_x, sizeof grad_x);
            save(folder, "grad_w", grad_w, sizeof grad_w);
            save(folder, "grad_b", grad_b, sizeof grad_b);
            save(folder, "grad_v", grad_v, sizeof grad_v);
        }
    }
    fclose(ys);
}

/* Numbers between -1 and 1 that look random. */
static void draw(REAL *numbers, int count) {
    static unsigned state = 1;
    for (int i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        numbers[i] = (REAL)(state >> 8) / 8388608 - 1;
    }
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "evaluate")) {
        evaluate(arguments[2]);
        return 0;
    }
    draw(&x[0][0], N * D), draw(&w[0][0], D * H), draw(b, H), draw(&v[0][0], H * O);
    save(".", "x", x, sizeof x), save(".", "w", w, sizeof w), save(".", "b", b, sizeof b), save(".", "v", v, sizeof v);
    return 0;
}
