/* Answers image files, or black images of any shape, with the loader that TensorFlow Serving uses, without Python:
 *   run_saved_model FOLDER INPUT OUTPUT OUTPUT_INDEX FILE...
 *   run_saved_model FOLDER INPUT OUTPUT OUTPUT_INDEX --shape SIZE...
 * INPUT and OUTPUT are the operations that the signature names. Prints the float scores, one image a line. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>
#include <tensorflow/c/tf_tstring.h>

static void check(TF_Status *status) {
    if (TF_GetCode(status) != TF_OK) {
        fprintf(stderr, "%s\n", TF_Message(status));
        exit(1);
    }
}

static void read_file(const char *path, TF_TString *bytes) {
    FILE *file = fopen(path, "rb");
    char buffer[65536];
    size_t count;
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    TF_TString_Init(bytes);
    while ((count = fread(buffer, 1, sizeof buffer, file)) > 0) {
        TF_TString_AppendN(bytes, buffer, count);
    }
    fclose(file);
}

static TF_Tensor *read_files(int64_t count, char **paths) {
    TF_Tensor *files = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
    for (int64_t i = 0; i < count; i++) {
        read_file(paths[i], (TF_TString *)TF_TensorData(files) + i);
    }
    return files;
}

static TF_Tensor *black(int dimensions, char **sizes) {
    int64_t shape[8], bytes = sizeof(float);
    for (int i = 0; i < dimensions; i++) {
        bytes *= shape[i] = atoi(sizes[i]);
    }
    TF_Tensor *images = TF_AllocateTensor(TF_FLOAT, shape, dimensions, bytes);
    memset(TF_TensorData(images), 0, bytes);
    return images;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: %s FOLDER INPUT OUTPUT OUTPUT_INDEX FILE...\n", argv[0]);
        return 2;
    }
    const char *tags[] = {"serve"};
    TF_Status *status = TF_NewStatus();
    TF_Graph *graph = TF_NewGraph();
    TF_SessionOptions *options = TF_NewSessionOptions();
    TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
    check(status);

    TF_Output input = {TF_GraphOperationByName(graph, argv[2]), 0};
    TF_Output output = {TF_GraphOperationByName(graph, argv[3]), atoi(argv[4])};
    if (input.oper == NULL || output.oper == NULL) {
        fprintf(stderr, "no operation %s\n", input.oper == NULL ? argv[2] : argv[3]);
        return 1;
    }
    int shaped = strcmp(argv[5], "--shape") == 0;
    TF_Tensor *images = shaped ? black(argc - 6, argv + 6) : read_files(argc - 5, argv + 5);
    TF_Tensor *result = NULL;
    TF_SessionRun(session, NULL, &input, &images, 1, &output, &result, 1, NULL, 0, NULL, status);
    check(status);

    const float *scores = TF_TensorData(result);
    for (int64_t i = 0; i < TF_Dim(result, 0); i++) {
        for (int64_t j = 0; j < TF_Dim(result, 1); j++) {
            printf("%.9g ", *scores++);
        }
        printf("\n");
    }
    TF_DeleteTensor(result);
    TF_CloseSession(session, status);
    check(status);
    return 0;
}
