"""Names for help, lists and errors, known without importing PyTorch.

Written by ``tests/cli/write_names.py``; a test holds it equal to the registries.
"""

# ruff: noqa: E501
# fmt: off

METHODS: dict[str, str] = {'boundary-expand': 'moves the forgotten data to an added class and takes that away',
 'boundary-shrink': 'moves the forgotten data to the nearest other class',
 'dsmixup': 'SISA whose affected networks are replaced, two by two, by one trained on mixes of their data',
 'eu-k': 'keeps the front layers and trains fresh weights behind them on the remaining data',
 'fine-tune': 'further training on the remaining data only',
 'gli': 'training on remaining data that is perturbed away from the forgotten data',
 'gradient-ascent': 'gradient ascent on the forgotten data',
 'l-mix': 'label-agnostic forgetting with plain mixup',
 'laf': 'label-agnostic forgetting: moves representations away from an autoencoder of the forgotten data',
 'laf+r': 'label-agnostic forgetting, then one supervised epoch for the classifier',
 'mixunlearn': 'adversarial mixup unlearning: a generator mixes forget and retain images against the unlearner',
 'mixunlearn-reset': 'resets most weights and retrains with forget images mixed into remaining ones',
 'neggrad': 'gradient descent on the remaining data, ascent on the forgotten',
 'prune-reset': 'sets most weights to zero and lets them grow again on the remaining data',
 'randlabel': "random labels on the forgotten data, the model's own predictions on the rest",
 'retrain': 'train the same network from scratch on the remaining data only',
 'salun': 'saliency unlearning: random labels, for the weights that matter to the forgotten data',
 'scrub': 'a student that contradicts the initial model on the forgotten data and follows it on the rest',
 'sisa': 'an ensemble on shards of the data, whose affected networks go back to a checkpoint and retrain',
 'ssd': 'selective synaptic dampening: shrinks the weights that matter most to the forgotten data',
 'ts': 'a student that flees a teacher of the forgotten data and follows one of the rest',
 'unroll': 'adds back the gradients of the forgotten data, as if training had not taken them'}

SETTINGS: dict[str, tuple[str, ...]] = {'boundary-expand': ('batch_size', 'epochs', 'lr', 'momentum'),
 'boundary-shrink': ('batch_size', 'epochs', 'lr', 'momentum', 'step', 'bound', 'nearest'),
 'dsmixup': ('batch_size', 'shards', 'slices', 'epochs', 'lr', 'optimizer', 'momentum', 'weight_decay', 'aggregate',
             'weights', 'processes', 'alpha'),
 'eu-k': ('batch_size', 'label_aware', 'weight_decay', 'frozen', 'epochs', 'lr', 'cache_mb'),
 'fine-tune': ('batch_size', 'epochs', 'lr', 'momentum', 'weight_decay'),
 'gli': ('batch_size', 'epochs', 'lr', 'momentum', 'perturb_steps', 'perturb_size', 'guide_first', 'guide_last',
         'validation', 'tolerance', 'check_interval'),
 'gradient-ascent': ('batch_size', 'epochs', 'lr', 'momentum'),
 'l-mix': ('batch_size', 'epochs', 'extract_lr', 'align_lr', 'tau', 'latent', 'vae_epochs', 'vae_lr', 'kl_weight',
           'embedding_layer', 'alpha', 'mix_weight'),
 'laf': ('batch_size', 'epochs', 'extract_lr', 'align_lr', 'tau', 'latent', 'vae_epochs', 'vae_lr', 'kl_weight',
         'embedding_layer'),
 'laf+r': ('batch_size', 'epochs', 'extract_lr', 'align_lr', 'tau', 'latent', 'vae_epochs', 'vae_lr', 'kl_weight',
           'embedding_layer', 'repair_epochs', 'repair_lr'),
 'mixunlearn': ('batch_size', 'stop', 'stop_samples', 'stop_tolerance', 'fast', 'precision', 'channels_last',
                'cuda_graphs', 'compile', 'cache_mb', 'label_aware', 'pairing', 'epochs', 'lr', 'alpha', 'tau_gen',
                'tau_mix', 'tau_real', 'omega', 'sharpen_T', 'generator_lr', 'generator_interval', 'adversary',
                'ema_momentum', 'generator_warmup', 'generator', 'use_mix_loss', 'use_real_loss', 'sharpen',
                'reduction', 'feature_layer'),
 'mixunlearn-reset': ('batch_size', 'label_aware', 'weight_decay', 'share', 'select', 'schedule', 'epochs', 'lr',
                      'mixed', 'most', 'generator', 'generator_lr', 'generator_interval', 'feature_layer',
                      'cache_mb'),
 'neggrad': ('batch_size', 'form', 'retain_weight', 'alpha', 'pull', 'lr', 'momentum', 'epochs'),
 'prune-reset': ('batch_size', 'label_aware', 'weight_decay', 'share', 'select', 'schedule', 'epochs', 'lr'),
 'randlabel': ('batch_size', 'stop', 'stop_samples', 'stop_tolerance', 'epochs', 'lr', 'retain_weight'),
 'retrain': ('epochs', 'lr', 'weight_decay', 'batch_size', 'optimizer', 'momentum', 'std_weight', 'consistency',
             'ramp_up', 'ema'),
 'salun': ('batch_size', 'epochs', 'lr', 'momentum', 'weight_decay', 'salient', 'retain_weight', 'random_labels'),
 'scrub': ('batch_size', 'variant', 'epochs', 'max_epochs', 'retain_batch_size', 'optimizer', 'lr', 'momentum',
           'weight_decay', 'gamma', 'alpha', 'T', 'decay_epochs', 'decay', 'rewind', 'validation'),
 'sisa': ('batch_size', 'shards', 'slices', 'epochs', 'lr', 'optimizer', 'momentum', 'weight_decay', 'aggregate',
          'weights', 'processes'),
 'ssd': ('batch_size', 'alpha', 'lam', 'importance'),
 'ts': ('batch_size', 'teachers', 'epochs', 'lr', 'T', 'retain_weight', 'teacher_epochs', 'teacher_lr',
        'teacher_batch_size', 'retain_share'),
 'unroll': ('batch_size', 'point', 'lr', 'train_epochs', 'power_iterations')}

ROWS: dict[str, str] = {'boundary-expand': 'boundary-expand',
 'boundary-shrink': 'boundary-shrink',
 'dsmixup': 'dsmixup',
 'eu-k-aware': 'eu-k',
 'eu-k-agnostic': 'eu-k',
 'fine-tune': 'fine-tune',
 'gli': 'gli',
 'gradient-ascent': 'gradient-ascent',
 'l-mix': 'l-mix',
 'laf': 'laf',
 'laf+r': 'laf+r',
 'mixunlearn-aware': 'mixunlearn',
 'mixunlearn-agnostic': 'mixunlearn',
 'mixunlearn-reset-aware': 'mixunlearn-reset',
 'mixunlearn-reset-agnostic': 'mixunlearn-reset',
 'neggrad': 'neggrad',
 'prune-reset-aware': 'prune-reset',
 'prune-reset-agnostic': 'prune-reset',
 'randlabel': 'randlabel',
 'salun': 'salun',
 'scrub': 'scrub',
 'sisa': 'sisa',
 'ssd': 'ssd',
 'ts': 'ts',
 'unroll': 'unroll'}

GRIDS: dict[str, str] = {'boundary-expand': 'lr 1e-05, 0.0001, 0.001',
 'boundary-shrink': 'bound 0.1, 0.2, 0.3, 0.4, 0.5',
 'dsmixup': 'lr 0.001, 0.01, 0.05; momentum 0, 0.9; alpha 0.3, 0.75, 1.5',
 'fine-tune': 'lr 0.001, 0.003, 0.01, 0.03, 0.1',
 'gli': 'perturb_steps 2, 3, 4, 5',
 'gradient-ascent': 'lr 1e-05, 0.0001, 0.001',
 'l-mix': 'alpha 0.3, 0.5, 0.75, 1, 1.5',
 'laf': 'tau 5, 20',
 'laf+r': 'tau 5, 20',
 'mixunlearn': 'alpha 0.3, 0.5, 0.75, 1, 1.5; tau_gen 0.05, 0.1, 0.5, 1, 5; tau_mix 1, 10, 20, 50; tau_real 2, 5, '
               '10, 20, 40; omega 0.5, 1, 10, 20, 30',
 'neggrad': 'retain_weight 0.001, 0.01, 0.1, 1, 10, 100',
 'randlabel': 'retain_weight 0.0001, 0.01, 0.1, 1, 10, 100',
 'salun': 'lr 0.001, 0.005, 0.013, 0.05; salient 0.3, 0.5, 0.7',
 'scrub': 'alpha 0.0001, 0.01, 0.1, 1, 10, 100; T 0.5, 1, 2, 3',
 'sisa': 'lr 0.001, 0.01, 0.05; momentum 0, 0.9',
 'ssd': 'alpha 1, 5, 10, 25, 50, 100; lam 0.1, 0.5, 1, 5',
 'ts': 'retain_weight 0.0001, 0.01, 0.1, 1, 10, 100; T 0.5, 1, 2, 3',
 'unroll': 'lr 0.001, 0.01, 0.1'}

TASKS: tuple[str, ...] = ('class', 'data', 'noisy', 'semi', 'indices')

DATASETS: tuple[str, ...] = ('cifar10', 'cifar100', 'digits', 'fashion-mnist', 'imagefolder', 'mnist', 'svhn')

MODELS: tuple[str, ...] = ('cnn', 'resnet14', 'resnet18', 'vit')

METRICS: dict[str, str] = {'train_r': 'accuracy on D_r, with the training augmentation',
 'train_f': 'accuracy on D_f, with the training augmentation',
 'test_r': 'test accuracy on the remaining classes',
 'test_f': 'test accuracy on the forgotten classes',
 'test': 'test accuracy',
 'asr': 'accuracy of a boosted-tree attacker on the sorted softmax: is a sample of D_f a member?',
 'tow': "(1 - |dA_f|) (1 - |dA_r|) (1 - |dA_test|), dA the difference to Retrain's accuracy as a fraction",
 'tow_mia': 'ToW with the accuracy of the loss attack in place of A_f',
 'mia_loss': 'accuracy of a logistic regression on the cross entropy: D_f against unseen samples of its classes',
 'mia_confidence': 'the same on the probability of the true class',
 'mia_entropy': 'the same on the entropy of the softmax',
 'activation_distance': 'mean over D_f of |softmax(f_U) - softmax(f_Retrain)|, Euclidean',
 'js_divergence': 'mean over D_f of the Jensen-Shannon divergence (base 2) between the softmax of f_U and of '
                  'f_Retrain',
 'zrf': '1 - mean over D_f of the Jensen-Shannon divergence (base 2) to the same network with random weights',
 'loss_kde_distance': 'Jensen-Shannon divergence (base 2) between the kernel density estimates of the loss on D_f '
                      'and of the loss on unseen samples of its classes',
 'relearn_steps': "training steps on D_f until the initial model's accuracy on it is back (only where asked for)"}

ATTACKS: tuple[str, ...] = ('lira', 'rmia', 'u-lira', 'klom')
